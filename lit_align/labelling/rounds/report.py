"""What the rounds of a campaign have brought: one table over all of them."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lit_align.data.formats.groups import Groups
from lit_align.functional.statistics import wilson_interval
from lit_align.jsonl import json_text, read_json, read_jsonl
from lit_align.labelling.rounds.phases import Round, trained
from lit_align.models.atomic_folder import replace_file
from lit_align.types import Group

FIELDS = (
    "round",
    "answers of",
    "prompts",
    "decided",
    "newer wins",
    "reward model before",
    "policy",
)
"""Columns of the table."""
BATCH_SIZE = 16
"""Comparisons that a reward model scores at once."""


def report_round(current: Round) -> dict[str, Any]:
    """The record of a finished round, which is kept in ``round.json`` in its folder.

    ``newer wins`` is the share of decided comparisons in which the newer policy's answer is the better one, from the
    second round on; ``reward model before`` is how often the reward model of the round before agrees with them.
    """
    file = current.home / "round.json"
    if file.is_file():
        record: dict[str, Any] = read_json(file)
        return record
    groups = [Groups()(row) for row in read_jsonl(current.labels)]
    decided = [group for group in groups if group.pairs]
    policies = current.policies
    previous = current._replace(number=current.number - 1)
    record = {
        "round": current.number,
        "previous": None if current.number == 1 else f"../{previous.home.name}",
        "answers of": [str(path) for path in policies],
        "prompts": len(read_jsonl(current.answers)),
        "decided": len(decided),
        "newer wins": None,
        "reward model before": None,
        "reward model": None if current.reward_model is None else str(current.reward_model),
        "policy": str(trained(current.home / "policy")),
    }
    if len(policies) == 2 and decided:
        record["newer wins"] = _share([group.pairs[0].better == 0 for group in decided])
    if current.number > 1 and previous.reward_model is not None and decided:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            agrees = pool.submit(agreement, str(previous.reward_model), decided).result()
        record["reward model before"] = _share(agrees)
    replace_file(file, json_text(record))
    return record


def write_report(folder: Path, records: list[dict[str, Any]]) -> str:
    """Write ``campaign.json`` and ``campaign.md``; the table is returned."""
    replace_file(folder / "campaign.json", json_text(records))
    lines = ["| " + " | ".join(FIELDS) + " |", "|" + "---|" * len(FIELDS)]
    for record in records:
        lines.append("| " + " | ".join(_cell(record[name]) for name in FIELDS) + " |")
    table = "\n".join(lines) + "\n"
    replace_file(folder / "campaign.md", table)
    return table


def _share(outcomes: list[bool]) -> dict[str, Any]:
    """A share with its 95 % interval (Wilson, 1927)."""
    share = sum(outcomes) / len(outcomes)
    return {"share": share, "interval": wilson_interval(share, len(outcomes))}


def agreement(adapter: str, groups: list[Group]) -> list[bool]:
    """Whether a reward model scores the better answer higher, for each comparison."""
    from lit_align.evaluation.reward_bench import judge_with_reward
    from lit_align.plugins import load_plugins
    from lit_align.rewards.reward_model import RewardModelScore

    load_plugins()
    verdicts, _ = judge_with_reward(RewardModelScore(adapter), groups, BATCH_SIZE)
    agrees: list[bool] = (verdicts.chosen > verdicts.rejected).tolist()
    return agrees


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, dict):
        low, high = value["interval"]
        return f"{100 * value['share']:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
    return str(value)
