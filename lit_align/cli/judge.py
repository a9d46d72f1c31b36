"""``lit-align judge``: label the rows of a data set with a judge, a reward or a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lit_align.cli.command import (
    DATA_SETTINGS,
    Settings,
    load_judged_groups,
    parse_settings,
    print_judging,
    run_setting,
)
from lit_align.data.formats.groups import as_row
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.agreement import label_groups, measure_agreement, summarize_results
from lit_align.feedback.checked_results import check_suitable
from lit_align.jsonl import write_json, write_rows
from lit_align.progress import CountedProgress
from lit_align.types import LabelKind

if TYPE_CHECKING:
    from rich.console import Console

    from lit_align.types import Group

SETTINGS: Settings = {
    "feedback": {"type": Feedback, "required": True, "help": "The judge, by its name."},
    "label_kind": {
        "type": Literal["pairs", "desirable", "ranking", "ratings", "demonstrations"],
        "default": "pairs",
        "help": "The labels to make.",
    },
    **DATA_SETTINGS,
    **run_setting("runs/judge"),
}


def run(arguments: list[str]) -> dict[str, Any]:
    """Label the rows, and measure agreement with the labels that the data have; returns the metrics.

    Args:
        arguments: of the command line, after ``judge``.

    Raises:
        ConfigError: if the settings are not valid.
    """
    from rich.console import Console

    settings, folder = parse_settings("lit-align judge", SETTINGS, arguments, _refuse)
    console = Console()
    groups = load_judged_groups(settings, LabelKind.RESPONSES, console, folder)
    results = _label(settings, groups, folder, console)
    metrics = {
        "feedback": repr(settings.feedback),
        "data": settings.data,
        "label_kind": settings.label_kind,
        "asked": summarize_results(results),
        "agreement": measure_agreement(groups, results),
    }
    write_json(folder / "judge.json", metrics)
    print_judging(console, metrics["asked"])
    agreement = metrics["agreement"]
    if agreement:
        low, high = agreement["interval"]
        console.print(
            f"{100 * agreement['accuracy']:.1f} % of {agreement['comparisons']:,} comparisons agree with the labels "
            f"that were there (95 %: {100 * low:.1f} to {100 * high:.1f}), kappa {agreement['kappa']:.2f}",
            highlight=False,
        )
    print(f"The run is in {folder}: labelled.jsonl, records.jsonl, judge.json, ledger.json.")
    return metrics


def _refuse(settings: Any) -> None:
    check_suitable(settings.feedback, settings.label_kind)


def _label(
    settings: Any, groups: Sequence[Group], folder: Path, console: Console
) -> list[FeedbackResult]:
    """Label all groups; results are written to files as they come."""
    cost = 0.0
    with (
        CountedProgress("judging", len(groups)) as progress,
        (folder / "labelled.jsonl").open("w", encoding="utf-8") as labelled,
        (folder / "records.jsonl").open("w", encoding="utf-8") as records,
    ):

        def write_results(results: Sequence[FeedbackResult]) -> None:
            nonlocal cost
            for result in results:
                cost += sum(record.get("cost", 0.0) for record in result.records)
                write_rows(records, result.records, ascii_only=True)
                if result.group is not None:
                    write_rows(labelled, [as_row(result.group)])
            labelled.flush()
            progress.add(len(results), text=f"cost {cost:.4f}")

        return label_groups(
            settings.feedback,
            groups,
            settings.label_kind,
            settings.batch_size,
            on_batch=write_results,
        )
