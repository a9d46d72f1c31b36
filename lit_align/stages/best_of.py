"""Best-of-N: several answers to each prompt, of which a reward chooses one; expected reward against the KL bound.

The bound on the KL divergence and when it is tight: Beirami et al., 2024, https://arxiv.org/abs/2401.01879.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import ConfigError
from lit_align.functional.best_of import expected_of_best
from lit_align.jsonl import write_json
from lit_align.plotting import saved_subplots
from lit_align.rewards import Reward
from lit_align.rewards.base import as_response, checked_scores
from lit_align.stages.step_search import Answer, StepSearch
from lit_align.types import Group


@dataclass
class BestOf:
    """Answer each prompt n times and choose the answer with the highest reward; of equal ones the first.

    An answer that the reward does not score is not chosen; where it scores none of a prompt's, ``answer`` is null.

    Args:
        n: answers to each prompt, whose tokens are read once for all of them.
        reward: what scores them, by its name.
        keep_all: write every answer, not only the best.
        search: look for answers step by step, rather than sample n whole ones; the best of those kept is chosen.
    """

    n: int
    reward: Reward
    keep_all: bool = False
    search: StepSearch | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"best_of.n is {self.n}; it is a number of answers, at least 1")
        if self.search is not None:
            self.search.check(self.n, self.reward)

    def check_temperature(self, temperature: float) -> None:
        """Refuse greedy sampling of several answers.

        Raises:
            ConfigError: naming both settings.
        """
        if self.n > 1 and temperature == 0:
            raise ConfigError(
                f"best_of.n is {self.n} and temperature 0, so all answers would be equal; set temperature"
            )

    def choose(
        self, groups: Sequence[Group], answers: Sequence[Sequence[Answer]]
    ) -> list[dict[str, Any]]:
        """For each group its best answer with its score, all scores, and which answers the model ended.

        If the reward has parts, ``rewards`` holds those of all answers: one of weight 0 in Weighted, such as a gold
        reward, is recorded and chooses nothing.

        Args:
            groups: the prompts.
            answers: n to each prompt.

        Example:
            >>> from lit_align.rewards.length import Length
            >>> answers = [Answer("An owl.", True), Answer("Owl", False), Answer("Crow.", True)]
            >>> BestOf(3, Length(max_words=1)).choose([Group("Name a bird.", [])], [answers])
            [{'answer': 'Owl', 'score': 0.0, 'scores': [-1.0, 0.0, 0.0], 'ended': [True, False, True]}]
        """
        if not groups:
            return []
        candidates = []
        for group, row in zip(groups, answers, strict=True):
            responses = [as_response(group, answer.text) for answer in row]
            ids = tuple(answer.ids for answer in row)
            candidates.append(group._replace(responses=responses, response_ids=ids))
        given = checked_scores(self.reward, candidates, may_abstain=True)
        total = given.total.cpu()
        if given.scored is not None:
            total = total.where(given.scored.cpu(), math.nan)
        sizes = [len(row) for row in answers]
        totals = _by_prompt(total, sizes)
        parts = {name: _by_prompt(part, sizes) for name, part in given.parts.items()}
        records = []
        for index, (row, scores) in enumerate(zip(answers, totals, strict=True)):
            record = self._record(row, scores)
            if parts:
                record["rewards"] = {name: values[index] for name, values in parts.items()}
            records.append(record)
        return records

    def _record(self, answers: Sequence[Answer], scores: Sequence[float | None]) -> dict[str, Any]:
        best, highest = None, -math.inf
        for answer, score in zip(answers, scores, strict=True):
            if score is not None and (best is None or score > highest):
                best, highest = answer, score
        record: dict[str, Any] = {
            "answer": None if best is None else best.text.strip(),
            "score": None if best is None else highest,
            "scores": scores,
            "ended": [answer.ended for answer in answers],
        }
        if self.keep_all:
            record["answers"] = [answer.text.strip() for answer in answers]
        return record

    def report(self, folder: Path, rows: Sequence[dict[str, Any]]) -> None:
        """Print the expected reward of the best of 1, 2, 4, ... n answers; write ``best_of.json`` and a plot.

        Args:
            folder: where to write.
            rows: records that `choose` returned, at least one.
        """
        scored = [[score for score in row["scores"] if score is not None] for row in rows]
        num_answers = num_cut_off = 0
        for row in rows:
            num_answers += len(row["ended"])
            num_cut_off += row["ended"].count(False)
        num_unscored = num_answers - sum(map(len, scored))
        if num_unscored:
            num_empty = scored.count([])
            print(
                f"{num_unscored} of {num_answers} answers were not scored and not chosen; {num_empty} prompts have no "
                "answer for that"
            )
        # what a search keeps is no sample, from which the best of fewer could be told
        curve = [] if self.search is not None else best_of_curve(scored)
        record = {
            "reward": repr(self.reward),
            "prompts": len(rows),
            "answers": num_answers,
            "cut_off": num_cut_off,
            "unscored": num_unscored,
            "curve": [point._asdict() for point in curve],
        }
        title = f"{len(rows)} prompts, {self.reward!r}"
        chosen = [row["score"] for row in rows if row["score"] is not None]
        if self.search is not None:
            record["chosen"] = sum(chosen) / len(chosen) if chosen else None
            print(f"mean reward of what the search has chosen: {record['chosen']} ({title})")
        write_json(folder / "best_of.json", record, ascii_only=True)
        if curve:
            _print_curve(curve, title)
        if num_cut_off:
            print(
                f"{num_cut_off} of {num_answers} answers were cut off by max_new_tokens and scored as they are; raise "
                "it if they are many"
            )
        if curve:
            _plot_curve(curve, type(self.reward).__name__, folder / "best_of.png")


def _by_prompt(values: Tensor, sizes: Sequence[int]) -> list[list[float | None]]:
    """Numbers of the answers to each prompt, of which there are ``sizes``; None for an answer that has none."""
    rows = [row.tolist() for row in torch.split(values, list(sizes))]
    return [[None if math.isnan(value) else value for value in row] for row in rows]


class BestOfPoint(NamedTuple):
    """Expected reward of the best of ``n`` answers.

    Args:
        n: answers to choose from.
        reward: its expectation, mean over prompts.
        kl: upper bound of the KL divergence from the model that was sampled, in nats; where answers repeat it is less,
            `lit_align.functional.best_of.best_of_kl`.
    """

    n: int
    reward: float
    kl: float


def best_of_curve(scores: Sequence[Sequence[float]]) -> list[BestOfPoint]:
    r"""Unbiased expected reward of the best of n = 1, 2, 4, ... N answers, from N scores of each prompt.

    The mean of the best over all subsets of n: with the scores in ascending order,

    .. math:: \sum_{i=n}^{N} \binom{i-1}{n-1} r_{(i)} \Big/ \binom{N}{n}, \qquad
        \mathrm{KL} \le \log n - \frac{n-1}{n}

    Args:
        scores: of the answers to each prompt, ``[prompts][N]``; a prompt with fewer than n is left out of the mean.

    Example:
        Of 1, 2 and 6 the pairs are (1, 2), (1, 6) and (2, 6): their best are 2, 6 and 6. A bound is log 2 - 1/2.

        >>> [(n, round(reward, 3), round(kl, 3)) for n, reward, kl in best_of_curve([[2.0, 6.0, 1.0]])]
        [(1, 3.0, 0.0), (2, 4.667, 0.193), (3, 6.0, 0.432)]
    """
    num_answers = max(map(len, scores))
    sizes = {2**k for k in range(num_answers.bit_length())}
    points = []
    for n in sorted({*sizes, num_answers} - {0}):
        expected = [expected_of_best(row, row, n) for row in scores if len(row) >= n]
        bound = math.log(n) - (n - 1) / n
        points.append(BestOfPoint(n, sum(expected) / len(expected), bound))
    return points


def _print_curve(curve: Sequence[BestOfPoint], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("best of", "mean reward", "KL, at most", title=title)
    for point in curve:
        table.add_row(str(point.n), f"{point.reward:.4f}", f"{point.kl:.3f} nats")
    Console().print(table)


def _plot_curve(curve: Sequence[BestOfPoint], reward_name: str, path: Path) -> None:
    with saved_subplots(path, figsize=(5, 3.5)) as (_, axis):
        _, rewards, bounds = zip(*curve, strict=True)
        axis.plot(bounds, rewards, "o-")
        for n, reward, bound in curve:
            axis.annotate(f"{n}", (bound, reward), textcoords="offset points", xytext=(0, 6))
        axis.set(
            title="best of n",
            xlabel="KL from the model, at most (nats)",
            ylabel=f"mean {reward_name}",
        )
        axis.grid(alpha=0.3)
