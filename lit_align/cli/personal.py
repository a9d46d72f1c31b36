"""``lit-align evaluate personal``: how often a reward model with a head for each annotator predicts their votes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.annotators import annotator_key, is_clear
from lit_align.cli.command import DATA_SETTINGS, Settings, load_judged_groups, run_setting
from lit_align.evaluation.personal import personal_report, personal_verdicts
from lit_align.jsonl import write_json
from lit_align.models.personal_head import load_shifts
from lit_align.progress import track
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.types import LabelKind

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SETTINGS: Settings = {
    "personal": {
        "type": str,
        "required": True,
        "help": "A PersonalRewardModel: the numbered folder of its run, or its adapter.",
    },
    "pooled": {
        "type": str | None,
        "default": None,
        "help": "A reward model of everyone to compare it with; null is its own mean head.",
    },
    "oracle": {
        "type": str | None,
        "default": None,
        "help": "Column with the true score of each response in the eyes of the row's annotator, where it is known.",
    },
    **DATA_SETTINGS,
    **run_setting("runs/evaluate"),
}

MAX_PERSONS = 30
"""Rows of the table on the screen; all are in the file."""

FEW_PERSONS = 5

LEGEND = """\
in % of a person's votes, a tie is half right; the mean counts each person as
one, and its 95 % interval is from a bootstrap over persons. trained on: rows of
theirs that the personal model was trained on."""


def refuse(settings: Any) -> None:
    """Require reward models, one of them personal.

    Raises:
        ModelError: if a folder has no reward model, or the personal one has one head for everyone.
    """
    _load(settings.personal, by_annotator=True)
    if settings.pooled is not None:
        _load(settings.pooled)


def _load(path: str, by_annotator: bool = False) -> RewardModelScore:
    """The reward of a run's folder, or of an adapter's."""
    adapter = Path(path).expanduser() / "adapter"
    return RewardModelScore(str(adapter if adapter.is_dir() else path), by_annotator=by_annotator)


def run(settings: Any, folder: Path) -> dict[str, Any]:
    """Score the votes, print the table, and write the metrics into ``folder``; returns them."""
    from rich.console import Console

    console = Console()
    read = [] if settings.oracle is None else [settings.oracle]
    groups = load_judged_groups(settings, LabelKind.PAIRS, console, folder, read)
    personal = _load(settings.personal, by_annotator=True)
    pooled = None if settings.pooled is None else _load(settings.pooled)

    def show_progress(starts: Iterable[int]) -> Iterable[int]:
        return track(starts, "batches scored")

    verdicts = personal_verdicts(
        personal, pooled, groups, settings.batch_size, settings.oracle, show_progress
    )
    _, annotators = load_shifts(next(iter(personal.folders)))
    report = personal_report(verdicts, dict(zip(annotators.keys, annotators.votes, strict=True)))
    header = {"personal": settings.personal, "pooled": settings.pooled, "data": settings.data}
    metrics = {**header, **report}
    write_json(folder / "personal.json", metrics)
    # a clear name comes last, so that it is shown where other rows have its hash
    named = sorted({str(name) for name in verdicts.annotator}, key=is_clear)
    names = {annotator_key(name): name for name in named}
    _print(console, metrics, names)
    print(f"The run is in {folder}: personal.json, ledger.json. Names are hashes there.")
    return metrics


def _print(console: Console, metrics: dict[str, Any], names: dict[str, str]) -> None:
    console.print(_format_table(metrics, names), highlight=False)
    console.print(LEGEND, style="dim", highlight=False)
    hidden = len(metrics["persons"]) - MAX_PERSONS
    if hidden > 0:
        console.print(f"{hidden:,} more persons are in the file.", highlight=False)
    for name, figures in metrics["difference"].items():
        text = f"{_shown(name, metrics)}: {_points(figures['mean'])} points, {_describe_interval(figures)}"
        console.print(text, highlight=False)
    if len(metrics["persons"]) < FEW_PERSONS:
        console.print(
            f"{len(metrics['persons'])} persons are too few for the interval to say much of others.",
            highlight=False,
        )


def _shown(name: str, metrics: dict[str, Any]) -> str:
    """A model's name on the screen: without --pooled, what is pooled is the personal model's own mean head."""
    return name if metrics.get("pooled") else name.replace("pooled", "mean head")


def _format_table(metrics: dict[str, Any], names: dict[str, str]) -> Table:
    """The persons with most votes, and the means over all."""
    from rich.table import Table

    models = list(metrics["mean"])
    shown = [_shown(model, metrics) for model in models]
    table = Table("annotator", "votes", "trained on", *shown, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    by_votes = sorted(metrics["persons"], key=lambda person: -person["votes"])
    for person in by_votes[:MAX_PERSONS]:
        cells = [f"{100 * person[model]:.1f}" for model in models]
        name = names[person["annotator"]]
        table.add_row(name, str(person["votes"]), str(person["trained_on"]), *cells)
    table.add_row()
    means = [f"{100 * metrics['mean'][model]['mean']:.1f}" for model in models]
    table.add_row("mean", str(metrics["votes"]), "", *means)
    intervals = []
    for model in models:
        interval = metrics["mean"][model]["interval"]
        bounds = [] if interval is None else [f"{100 * bound:.1f}" for bound in interval]
        intervals.append("\N{EN DASH}".join(bounds))
    table.add_row("95 %", "", "", *intervals)
    return table


def _describe_interval(figures: dict[str, Any]) -> str:
    if figures["interval"] is None:
        return "no interval: there is one person, or all have the same figure"
    low, high = figures["interval"]
    return f"95 % {_points(low)} to {_points(high)}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
