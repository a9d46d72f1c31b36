"""``lit-align inspect --rounds``: what an on-line run sampled, who labelled it, and how."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

Row = dict[str, Any]


def run(arguments: list[str]) -> None:
    """A line for each round, then a few of its records.

    Args:
        arguments: of the command line, behind ``inspect``.

    Raises:
        ConfigError: if the folder is of no on-line run, or has no such round.
    """
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser("lit-align inspect", description=__doc__)
    parser.add_argument(
        "--rounds", metavar="FOLDER", type=Path, required=True, help="numbered folder of a run"
    )
    parser.add_argument(
        "--round", type=int, help="the round to show records of; the last one if left out"
    )
    parser.add_argument("--records", type=int, default=3, help="how many")
    asked = parser.parse_args(arguments)
    known = {int(file.stem): file for file in (asked.rounds / "rounds").glob("*.jsonl")}
    if not known:
        raise ConfigError(
            f"there are no rounds in {asked.rounds}; give the numbered folder of a run with data Online"
        )
    chosen = max(known) if asked.round is None else asked.round
    if chosen not in known:
        raise ConfigError(
            f"there is no round {chosen} in {asked.rounds}; it has {min(known)} to {max(known)}"
        )
    console, table = (
        Console(),
        Table("round", "step", "prompts", "labelled", "cost", "set aside", box=None),
    )
    rows: list[Row] = []
    for number in sorted(known):
        found = [json.loads(line) for line in known[number].read_text("utf-8").splitlines()]
        whys = Counter(row["set_aside"] for row in found if "set_aside" in row)
        cost = sum(record.get("cost", 0.0) for row in found for record in row["records"])
        counts = [number, found[0]["step"], len(found), len(found) - whys.total(), f"{cost:.4f}"]
        table.add_row(
            *map(str, counts), ", ".join(f"{count} {why}" for why, count in whys.most_common())
        )
        rows = found if number == chosen else rows
    console.print(table, highlight=False, markup=False)
    for row in rows[: asked.records]:
        _show(console, row)


def _show(console: Console, row: Row) -> None:
    console.rule(f"round {row['round']}: {row['source']}", characters="-", style="dim")
    lines = [f"prompt: {_said(row['prompt'])}"]
    lines += [f"({k}) {_said(one)}" for k, one in enumerate(row["responses"])]
    lines += [
        f"    also sampled: {_said(one)}"
        for one in row.get("samples", ())
        if one not in row["responses"]
    ]
    names = ("pairs", "desirable", "ranking", "ratings", "target")
    labels = [
        f"{name}: {json.dumps(row[name])}"
        for name in names
        if name in row and "set_aside" not in row
    ]
    lines += (
        [f"set aside: {row['set_aside']}"] if "set_aside" in row else labels or ["to be imitated"]
    )
    lines += [
        json.dumps({name: value for name, value in record.items() if name != "prompt"})
        for record in row["records"]
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _said(text: str | list[dict[str, str]]) -> str:
    """Text, or messages, on one line."""
    return json.dumps(
        text if isinstance(text, str) else " / ".join(one["content"] for one in text),
        ensure_ascii=False,
    )
