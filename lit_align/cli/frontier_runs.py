"""What ``evaluate frontier`` reads: figures that runs have recorded, and checkpoints that are sampled."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lit_align.checkpoint_files import find_checkpoint
from lit_align.cli.frontier_rewards import RecordedRewards, Rewards
from lit_align.cli.frontier_samples import Asked, reads_chat, sampled_points
from lit_align.data.readers import read_rows
from lit_align.errors import ConfigError, DataError
from lit_align.evaluation.frontier import (
    BEST_OF_N,
    CHECKPOINTS,
    FIGURES,
    RL_ITERATIONS,
    FrontierPoint,
    FrontierRun,
)
from lit_align.functional.best_of import best_of_kl, expected_of_best
from lit_align.jsonl import read_jsonl
from lit_align.loading import load
from lit_align.rewards import Group
from lit_align.rewards.base import as_response, checked_scores
from lit_align.run_report.record import METRICS, read_curves

COLUMNS = ("kl", "proxy", "gold")
KL, SCORES = "objective/kl", "objective/scores"

RECORD = ("source", "prompt", "answer", "score", "scores", "ended", "answers", "rewards")
"""The fields of a record of best-of-n that are no columns of the data."""

REMEDY = "train or predict with Weighted, the gold reward with weight 0"


def read_frontier_run(path: str, rewards: Rewards, asked: Asked | None) -> FrontierRun:
    """The points of one run.

    Args:
        path: numbered folder of a run of RL or of predict with best-of-n, a checkpoint or the folder of another run, or
            a file with the columns kl, proxy and gold.
        rewards: gold and proxy.
        asked: prompts on which checkpoints are sampled; None if there are no data.

    Raises:
        ConfigError: if it is none of these, or lacks the gold reward.
    """
    location = Path(path)
    if location.is_file() and location.suffix != ".ckpt":
        return FrontierRun(path, FIGURES, _read_figures(path))
    answers = sorted(location.glob("answers*.jsonl")) if location.is_dir() else []
    if answers:
        return FrontierRun(path, BEST_OF_N, _read_best_of(answers, rewards))
    curves = read_curves(location / METRICS) if location.is_dir() else {}
    if KL in curves:
        parts = [name.removeprefix("rewards/") for name in curves if name.startswith("rewards/")]
        recorded = RecordedRewards(location, RL_ITERATIONS, parts)
        if recorded.gold(rewards):
            return FrontierRun(path, RL_ITERATIONS, _read_iterations(curves, recorded, rewards))
    if asked is None:
        raise ConfigError(
            f"{path} has recorded no {rewards.gold_part} beside its KL; {REMEDY}, or give data and proxy: its "
            "checkpoint is then sampled"
        )
    as_chat = reads_chat(find_checkpoint(path))
    points = sampled_points(
        load(path), asked._replace(as_chat=as_chat), rewards.gold, rewards.proxy
    )
    gc.collect()  # a stage refers to itself, and the next one needs the memory
    return FrontierRun(path, CHECKPOINTS, points)


def _columns_of_data(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the data in a record of predictions, under their own names: the inverse of `prediction_record`."""
    columns = {name: value for name, value in row.items() if name not in RECORD}
    for name in RECORD:
        if f"data.{name}" in row:
            del columns[f"data.{name}"]
            columns[name] = row[f"data.{name}"]
    return columns


def _read_figures(path: str) -> tuple[FrontierPoint, ...]:
    points = []
    for location, row in read_rows(path):
        values = [row.get(name) for name in COLUMNS] if isinstance(row, dict) else []
        try:
            kl, proxy, gold = (float(str(value)) for value in values)
        except ValueError:
            raise DataError(
                f"{location} has no numbers {', '.join(COLUMNS)}; a table of figures has these columns"
            ) from None
        if not all(map(math.isfinite, (kl, proxy, gold))):
            raise DataError(f"{location} has {kl}, {proxy}, {gold}; figures are finite numbers")
        points.append(FrontierPoint(kl, proxy, gold, str(location)))
    if not points:
        raise DataError(f"{path} has no rows; a table of figures has the columns {COLUMNS}")
    return tuple(points)


def _read_iterations(
    curves: Mapping[str, tuple[list[int], list[float]]], recorded: RecordedRewards, rewards: Rewards
) -> tuple[FrontierPoint, ...]:
    """A point for each iteration that logged all three figures."""
    proxy = recorded.proxy(rewards)
    names = (KL, f"rewards/{proxy}" if proxy else SCORES, f"rewards/{recorded.gold(rewards)}")
    by_step = [dict(zip(*curves[name], strict=True)) for name in names]
    points = []
    for step in by_step[0]:
        if all(step in values for values in by_step):
            kl, score, gold = (values[step] for values in by_step)
            points.append(FrontierPoint(kl, score, gold, f"iteration {step}"))
    return tuple(points)


def _read_best_of(files: Sequence[Path], rewards: Rewards) -> tuple[FrontierPoint, ...]:
    """The best of 1, 2, 4, ... of the answers to each prompt; KL, proxy and gold are means over prompts.

    An answer that the reward or gold did not score is left out, and a prompt with fewer than n out of the best of n.
    """
    rows: list[dict[str, Any]] = []
    for file in files:
        rows += read_jsonl(file)
    if not rows or "scores" not in rows[0]:
        raise ConfigError(
            f"{files[0]} has no scores; predict with model.best_of.n, model.best_of.reward"
        )
    recorded = RecordedRewards(files[0].parent, BEST_OF_N, list(rows[0].get("rewards", {})))
    has_texts = all("answers" in row for row in rows)
    gold_part, proxy_part = recorded.gold(rewards, can_compute=has_texts), recorded.proxy(rewards)
    if gold_part is not None and all(gold_part in row.get("rewards", {}) for row in rows):
        golds = [row["rewards"][gold_part] for row in rows]
    else:
        golds = _gold_of_texts(rows, files[0], rewards)
    answers = []
    for row, gold in zip(rows, golds, strict=True):
        recorded_proxy = row["rewards"][proxy_part] if proxy_part else row["scores"]
        answers.append(_scored_answers(row["scores"], recorded_proxy, gold))
    num_answers = max(len(of_prompt) for of_prompt in answers)
    if not num_answers:
        raise DataError(
            f"{files[0]} has no answer with both a score and {rewards.gold_part}; name a gold reward that scores them"
        )
    sizes = sorted({*(2**k for k in range(num_answers.bit_length())), num_answers})
    points = []
    for n in sizes:
        figures = []
        for of_prompt in answers:
            if len(of_prompt) < n:
                continue
            scores, proxies, known = zip(*of_prompt, strict=True)
            proxy_best, gold_best = (
                expected_of_best(scores, values, n) for values in (proxies, known)
            )
            figures.append((best_of_kl(scores, n), proxy_best, gold_best))
        kl, proxy_mean, gold_mean = torch.tensor(figures, dtype=torch.float64).mean(0).tolist()
        points.append(FrontierPoint(kl, proxy_mean, gold_mean, f"n = {n}"))
    return tuple(points)


def _scored_answers(
    scores: Sequence[float | None], proxy: Sequence[float | None], gold: Sequence[float | None]
) -> list[tuple[float, float, float]]:
    """Score, proxy and gold of the answers to a prompt that have all three."""
    figures: Iterable[Any] = zip(scores, proxy, gold, strict=True)
    return [values for values in figures if None not in values]


def _gold_of_texts(
    rows: Sequence[dict[str, Any]], file: Path, rewards: Rewards
) -> list[list[float | None]]:
    """Gold of all answers, computed from their texts."""
    if not all("answers" in row for row in rows):
        raise ConfigError(
            f"{file} holds neither {rewards.gold_part} of all answers nor their texts; {REMEDY}, or with "
            "model.best_of.keep_all"
        )
    golds = []
    for row in rows:
        group = Group(row["prompt"], [], source=row["source"], extra=_columns_of_data(row))
        group = group._replace(responses=[as_response(group, text) for text in row["answers"]])
        scores = checked_scores(rewards.gold, [group], may_abstain=True)
        total: list[float | None] = scores.total.tolist()
        if scores.scored is not None:
            scored = scores.scored.tolist()
            total = [value if known else None for value, known in zip(total, scored, strict=True)]
        golds.append(total)
    return golds
