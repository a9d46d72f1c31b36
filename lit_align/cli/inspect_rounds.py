"""``lit-align inspect --rounds``: what an on-line run sampled, how it was labelled, and by whom."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.errors import ConfigError
from lit_align.jsonl import read_jsonl

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = dict[str, Any]

LABELS = ("pairs", "desirable", "ranking", "ratings", "target")


def run(arguments: list[str]) -> None:
    """Print a line for each round, then a few records of one.

    Args:
        arguments: of the command line, after ``inspect``.

    Raises:
        ConfigError: if the folder is of no on-line run, or has no such round.
    """
    from rich.console import Console

    parser = argparse.ArgumentParser("lit-align inspect", allow_abbrev=False, description=__doc__)
    parser.add_argument(
        "--rounds", metavar="FOLDER", type=Path, required=True, help="numbered folder of a run"
    )
    parser.add_argument(
        "--round", type=int, help="the round to show records of; the last one if left out"
    )
    parser.add_argument("--records", type=int, default=3, help="number of records to show")
    options = parser.parse_args(arguments)
    files = {int(file.stem): file for file in (options.rounds / "rounds").glob("*.jsonl")}
    if not files:
        raise ConfigError(
            f"there are no rounds in {options.rounds}; give the numbered folder of a run with data Online"
        )
    chosen = max(files) if options.round is None else options.round
    if chosen not in files:
        raise ConfigError(
            f"there is no round {chosen} in {options.rounds}; it has {min(files)} to {max(files)}"
        )
    console = Console()
    rounds = {number: read_jsonl(files[number]) for number in sorted(files)}
    console.print(_format_rounds(rounds), highlight=False, markup=False)
    for row in rounds[chosen][: options.records]:
        _print_record(console, row)


def _format_rounds(rounds: dict[int, list[Row]]) -> Table:
    from rich.table import Table

    table = Table("round", "step", "prompts", "labelled", "cost", "set aside", box=None)
    for number, rows in rounds.items():
        reasons: Counter[str] = Counter()
        cost = 0.0
        for row in rows:
            if "set_aside" in row:
                reasons[row["set_aside"]] += 1
            cost += sum(record.get("cost", 0.0) for record in row["records"])
        table.add_row(
            str(number),
            str(rows[0]["step"]),
            str(len(rows)),
            str(len(rows) - reasons.total()),
            f"{cost:.4f}",
            ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()),
        )
    return table


def _print_record(console: Console, row: Row) -> None:
    console.rule(f"round {row['round']}: {row['source']}", characters="-", style="dim")
    lines = [f"prompt: {_one_line(row['prompt'])}"]
    for index, response in enumerate(row["responses"]):
        lines.append(f"({index}) {_one_line(response)}")
    for sample in row.get("samples", ()):
        if sample not in row["responses"]:
            lines.append(f"    also sampled: {_one_line(sample)}")
    lines += _format_labels(row)
    for record in row["records"]:
        shown = {name: value for name, value in record.items() if name != "prompt"}
        lines.append(json.dumps(shown))
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _format_labels(row: Row) -> list[str]:
    if "set_aside" in row:
        return [f"set aside: {row['set_aside']}"]
    labels = [f"{name}: {json.dumps(row[name])}" for name in LABELS if name in row]
    return labels or ["demonstration"]


def _one_line(text: str | list[dict[str, str]]) -> str:
    """Text, or messages, on one line."""
    if not isinstance(text, str):
        text = " / ".join(message["content"] for message in text)
    return json.dumps(text, ensure_ascii=False)
