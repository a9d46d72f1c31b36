"""``lit-align judge``: rows in, the same rows out with the labels that somebody gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from lit_align.cli.command import READING, shown, tell, understood
from lit_align.data.formats.groups import as_row
from lit_align.data.read_groups import DataSource, load_groups
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.agreement import label_groups, measure_agreement, summarize_results
from lit_align.plugins import load_plugins
from lit_align.types import LabelKind

SETTINGS: dict[str, dict[str, Any]] = {
    "feedback": {"type": Feedback, "required": True, "help": "Who is asked, by its name."},
    "label_kind": {
        "type": Literal["pairs", "desirable", "ranking", "ratings", "demonstrations"],
        "default": "pairs",
        "help": "The labels that are wanted.",
    },
    **READING,
    "run": {
        "type": str,
        "default": "runs/judge",
        "help": "Folder of runs; each one gets a number in it.",
    },
}


def run(arguments: list[str], choose: Callable[[Path], Path]) -> dict[str, Any]:
    """Label the rows, and say how far the labels agree with those that were there; gives the figures.

    Args:
        arguments: of the command line, behind ``judge``.
        choose: makes a numbered folder in a folder of runs.

    Raises:
        ConfigError: if the settings are not sound.
    """
    from rich.console import Console
    from rich.progress import Progress

    made, folder = understood("lit-align judge", SETTINGS, arguments, choose)
    console, cost = Console(), 0.0
    groups = load_groups(
        DataSource(
            made.data,
            LabelKind.RESPONSES,
            made.format,
            load_plugins().formats.default_instances(),
            max_malformed=made.max_malformed,
            on_ledger=shown(console, folder),
        )
    )
    labelled, records = folder / "labelled.jsonl", folder / "records.jsonl"
    with (
        Progress(console=console) as bar,
        labelled.open("w", encoding="utf-8") as rows,
        records.open("w") as asked,
    ):
        task = bar.add_task("judging", total=len(groups))

        def seen(opinions: Sequence[FeedbackResult]) -> None:
            nonlocal cost
            for opinion in opinions:
                cost += sum(record.get("cost", 0.0) for record in opinion.records)
                asked.writelines(json.dumps(record) + "\n" for record in opinion.records)
                if opinion.group is not None:
                    # a column from Parquet may be a date or bytes, which JSON has no word for
                    rows.write(
                        json.dumps(as_row(opinion.group), ensure_ascii=False, default=str) + "\n"
                    )
            rows.flush()
            bar.update(task, advance=len(opinions), description=f"judging, cost {cost:.4f}")

        opinions = label_groups(
            made.feedback, groups, made.label_kind, made.batch_size, on_batch=seen
        )
    about = {"feedback": repr(made.feedback), "data": made.data, "label_kind": made.label_kind}
    found = {
        **about,
        "asked": summarize_results(opinions),
        "agreement": measure_agreement(groups, opinions),
    }
    (folder / "judge.json").write_text(
        json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    tell(console, found["asked"])
    if of := found["agreement"]:
        low, high = of["interval"]
        console.print(
            f"{100 * of['accuracy']:.1f} % of {of['comparisons']:,} comparisons agree with the labels that were there "
            f"(95 %: {100 * low:.1f} to {100 * high:.1f}), kappa {of['kappa']:.2f}",
            highlight=False,
        )
    print(f"The run is in {folder}: labelled.jsonl, records.jsonl, judge.json, ledger.json.")
    return found
