"""``lit-align evaluate reward-bench``: how often a judge prefers the better response."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.cli.command import (
    DATA_SETTINGS,
    Settings,
    load_judged_groups,
    print_judging,
    run_setting,
)
from lit_align.errors import ConfigError
from lit_align.evaluation.reward_bench import build_report, judge_with_reward, length_notice
from lit_align.evaluation.reward_bench_2 import PromptScores, best_of_report, prompt_scores
from lit_align.feedback import Feedback
from lit_align.feedback.agreement import label_groups, summarize_results
from lit_align.feedback.checked_results import check_suitable
from lit_align.feedback.verdicts import verdicts_from_feedback
from lit_align.jsonl import write_json
from lit_align.progress import track
from lit_align.rewards import Reward
from lit_align.types import LabelKind

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SETTINGS: Settings = {
    "reward": {
        "type": Reward | None,
        "default": None,
        "help": "A judge that scores responses, by its name.",
    },
    "feedback": {
        "type": Feedback | None,
        "default": None,
        "help": "A judge that compares them, by its name.",
    },
    **DATA_SETTINGS,
    **run_setting("runs/evaluate"),
}

REPORTED_COLUMNS = ("subset", "id", "num_correct")
"""Columns of the data that the reports read."""

COLUMNS = ("n", "right", "95 %", "ties", "longer", "shorter", "r", "ECE")
LEGEND = """\
right: in %, a tie is half right. 95 %: bootstrap over prompts; Wilson's where
all resamples agree. longer, shorter: accuracy of preferring more, or fewer,
words. r: rank correlation of score and words. ECE: expected calibration
error."""


def refuse(settings: Any) -> None:
    """Require one judge.

    Raises:
        ConfigError: if there are two, or none, or if it does not judge given responses.
    """
    if (settings.reward is None) == (settings.feedback is None):
        problem = "are two judges" if settings.reward else "is no judge"
        raise ConfigError(f"there {problem}; give --reward or --feedback")
    if settings.feedback is not None:
        check_suitable(settings.feedback, LabelKind.PAIRS, verdicts=True)


def run(settings: Any, folder: Path) -> dict[str, Any]:
    """Judge, print the table, and write metrics and plots into ``folder``; returns the metrics."""
    from rich.console import Console

    from lit_align.evaluation.plots import plot_reliability, plot_scores

    console = Console()
    groups = load_judged_groups(settings, LabelKind.PAIRS, console, folder, REPORTED_COLUMNS)

    def show_progress(starts: Iterable[int]) -> Iterable[int]:
        return track(starts, "batches judged")

    header: dict[str, Any]
    if settings.reward is not None:
        prompts: list[PromptScores | None] = []
        verdicts, num_cut = judge_with_reward(
            settings.reward,
            groups,
            settings.batch_size,
            show_progress,
            lambda group, scores: prompts.append(prompt_scores(group, scores)),
        )
        second = best_of_report([prompt for prompt in prompts if prompt])
        header = {"reward": repr(settings.reward), "data": settings.data, "responses_cut": num_cut}
        if second["subsets"]:
            header["reward_bench_2"] = second
    else:
        results = label_groups(
            settings.feedback, groups, "pairs", settings.batch_size, show_progress
        )
        verdicts, _ = verdicts_from_feedback(groups, results)
        judging = summarize_results(results)
        header = {"feedback": repr(settings.feedback), "data": settings.data, "asked": judging}
    metrics = {**header, "length": "words", **build_report(verdicts)}
    write_json(folder / "reward_bench.json", metrics)
    plot_scores(verdicts, folder / "scores.png")
    plot_reliability(metrics["calibration"], folder / "reliability.png")
    _print_metrics(console, metrics)
    print(f"The run is in {folder}: reward_bench.json, ledger.json, scores.png, reliability.png.")
    return metrics


def _print_metrics(console: Console, metrics: dict[str, Any]) -> None:
    console.print(_format_table(metrics), highlight=False)
    if "reward_bench_2" in metrics:
        console.print(_format_second(metrics["reward_bench_2"]), highlight=False)
    console.print(LEGEND, style="dim", highlight=False)
    if notice := length_notice(metrics["all"]):
        console.print(f"Note: {notice}.", highlight=False, markup=False)
    if "asked" in metrics:
        print_judging(console, metrics["asked"])
    elif metrics["responses_cut"]:
        console.print(
            f"{metrics['responses_cut']:,} responses were longer than the judge reads, and were cut."
        )


def _format_table(metrics: dict[str, Any]) -> Table:
    """Subsets and all of them; below, sections and scores made of subsets."""
    from rich.table import Table

    title = metrics.get("reward") or metrics["feedback"]
    table = Table("", *COLUMNS, title=title, box=None, collapse_padding=True, pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for name, subset in metrics["subsets"].items():
        table.add_row(name, *_subset_cells(subset))
    table.add_row("all", *_subset_cells(metrics["all"]))
    table.add_row()
    for name, section in metrics["sections"].items():
        is_complete = section["subsets"] == section["of"]
        parts = "" if is_complete else f" ({section['subsets']} of {section['of']})"
        table.add_row(f"{name}{parts}", "", *_accuracy_cells(section))
    if metrics["score"]:
        table.add_row("score", "", *_accuracy_cells(metrics["score"]))
    for name, refusals in metrics["refusals"].items():
        table.add_row(name, "", *_accuracy_cells(refusals))
    return table


def _format_second(report: dict[str, Any]) -> Table:
    """RewardBench 2's scores: its subsets, and their mean if all are there."""
    from rich.table import Table

    table = Table("RewardBench 2", "prompts", "score", box=None, collapse_padding=True)
    for name, subset in report["subsets"].items():
        score = "-" if subset["score"] is None else _percent(subset["score"])
        table.add_row(name, str(subset["prompts"]), score)
    if report["score"] is not None:
        table.add_row("mean", "", _percent(report["score"]))
    return table


def _subset_cells(subset: dict[str, Any]) -> list[str]:
    return [
        str(subset["comparisons"]),
        *_accuracy_cells(subset),
        str(subset["ties"]),
        _percent(subset["longer_wins"]),
        _percent(subset["shorter_wins"]),
        _decimal(subset["length_correlation"]),
        _decimal(subset["calibration_error"]),
    ]


def _accuracy_cells(part: dict[str, Any]) -> list[str]:
    low, high = part["interval"]
    return [_percent(part["accuracy"]), f"{_percent(low)}\u2013{_percent(high)}"]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
