"""``lit-align evaluate tournament``: every run against every other one, and ratings with ties and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.checks import check_at_least
from lit_align.cli import suite
from lit_align.cli.command import Settings, print_judging, run_setting
from lit_align.cli.duels import judge_duels
from lit_align.errors import ConfigError, DataError
from lit_align.evaluation.evaluated_model import evaluated_models
from lit_align.evaluation.suite_run import collect_answers, read_tasks
from lit_align.evaluation.tournament import Dialogues, Duel, make_duels, outcome, rate
from lit_align.feedback import Feedback
from lit_align.feedback.agreement import summarize_results
from lit_align.feedback.checked_results import check_suitable
from lit_align.jsonl import write_json, write_jsonl
from lit_align.types import LabelKind

if TYPE_CHECKING:
    from rich.table import Table

SETTINGS: Settings = {
    "runs": suite.SETTINGS["runs"],
    "feedback": {
        "type": Feedback,
        "required": True,
        "help": "The judge; Judge shows each pair in both orders.",
    },
    "data": {
        "type": str,
        "nargs": "+",
        "required": True,
        "help": "Files or hub data sets with turns (a list of the user's turns, as MT-bench has them) or prompt.",
    },
    "limit": {"type": int | None, "default": None, "help": "The first so many rows; null is all."},
    "max_new_tokens": {"type": int, "default": 256, "help": "Longest answer to one turn."},
    "tie_margin": {
        "type": float,
        "default": 0.0,
        "help": "Distance from 1/2 up to which a judge's probability is a tie.",
    },
    "sampler": suite.SETTINGS["sampler"],
    "save_every": suite.SETTINGS["save_every"],
    **run_setting("runs/evaluate"),
}

LEGEND = (
    "Log-strengths by Davidson's model, 0 on average: a difference is the log-odds of a win against a loss. 95 %: of "
    "the difference to the first, by bootstrap over prompts and by the curvature of the fit. Elo: 1000 on average."
)


def refuse(settings: Any) -> None:
    """Require two runs at least, a judge of pairs, and numbers in range.

    Raises:
        ConfigError: naming the setting.
    """
    check_suitable(settings.feedback, LabelKind.PAIRS, verdicts=True)
    check_at_least("save_every", settings.save_every, 1)
    if not 0 <= settings.tie_margin < 0.5:
        raise ConfigError(f"tie_margin is {settings.tie_margin}; it is from 0 to less than 0.5")
    if len(settings.runs) < 2:
        raise ConfigError(f"runs is {settings.runs[0]} alone; a tournament has two runs or more")
    evaluated_models(settings.runs)


def run(settings: Any, folder: Path) -> dict[str, Any]:
    """Let all runs answer, judge all pairs, and print and write the ratings; returns them.

    Raises:
        DataError: if no verdict could be read.
    """
    from rich.console import Console

    console = Console()
    task = Dialogues(settings.data, settings.limit, settings.max_new_tokens)
    [asked] = read_tasks([task], settings.save_every)
    models = evaluated_models(settings.runs, settings.sampler)
    names = [model.name for model in models]
    answers = collect_answers(models, asked)
    duels = make_duels(asked.rows, [answers[name] for name in names])
    groups = [duel.group for duel in duels]
    is_different = [not duel.is_same for duel in duels]
    results, first_wins = judge_duels(settings.feedback, groups, is_different, settings.save_every)
    outcomes = [None if p is None else outcome(p, settings.tie_margin) for p in first_wins]
    if outcomes.count(None) == len(outcomes):
        raise DataError("no duel was judged, so there are no ratings; see the reasons of the judge")
    report = {
        "runs": {model.name: model.run for model in models},
        "feedback": repr(settings.feedback),
        "data": settings.data,
        "duels": len(duels),
        "same_answer": sum(duel.is_same for duel in duels),
        "asked": summarize_results(results),
        **rate(duels, outcomes, names),
    }
    write_json(folder / "tournament.json", report)
    write_jsonl(folder / "duels.jsonl", _rows(duels, outcomes, names))
    print_judging(console, report["asked"])
    for title, ratings in report["ratings"].items():
        console.print(_ratings_table(title, ratings))
    for pair in report["pairs"]:
        counts = f"{pair['wins']} wins, {pair['ties']} ties, {pair['losses']} losses"
        console.print(
            f"{pair['first']} against {pair['second']}: {counts}", highlight=False, markup=False
        )
    console.print(LEGEND, style="dim", highlight=False)
    print(f"The run is in {folder}: tournament.json, duels.jsonl.")
    return report


def _rows(
    duels: Sequence[Duel], outcomes: Sequence[float | None], names: Sequence[str]
) -> list[dict[str, Any]]:
    rows = []
    for duel, result in zip(duels, outcomes, strict=True):
        rows.append(
            {
                "prompt": duel.group.prompt,
                "turn": duel.turn,
                "first": names[duel.first],
                "second": names[duel.second],
                "responses": duel.group.responses,
                "first_wins": result,
            }
        )
    return rows


def _ratings_table(title: str, ratings: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(title=f"{title}, {ratings['prompts']:,} prompts", title_justify="left")
    for column in ("run", "log-strength", "to the first", "95 %", "Elo", "rank"):
        table.add_column(column, justify="left" if column == "run" else "right")
    models = sorted(ratings["models"].items(), key=lambda item: -item[1]["log_strength"])
    for name, model in models:
        low, high = model["interval"]
        best, worst = model["ranks"]
        is_first = model["above_first"] == 0 and low == high == 0
        table.add_row(
            name,
            f"{model['log_strength']:+.2f}",
            "" if is_first else f"{model['above_first']:+.2f}",
            "" if is_first else f"{low:+.2f} to {high:+.2f}",
            f"{model['elo']:.0f}",
            f"{best:.0f}" if best == worst else f"{best:.0f} to {worst:.0f}",
        )
    return table
