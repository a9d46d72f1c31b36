"""``lit-align evaluate``: how good a judge is, on the screen and in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.cli import win_rate
from lit_align.cli.command import READING, shown, tell, understood
from lit_align.cli.error_messages import near
from lit_align.errors import ConfigError
from lit_align.evaluation.reward_bench import build_report, comparisons, judge_with_reward
from lit_align.feedback import Feedback
from lit_align.feedback.agreement import label_groups, summarize_results
from lit_align.feedback.verdicts import verdicts_from_feedback
from lit_align.orca import command as cross_modal
from lit_align.rewards import Reward

if TYPE_CHECKING:
    from rich.console import Console

SETTINGS: dict[str, dict[str, Any]] = {
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
    **READING,
    "run": {
        "type": str,
        "default": "runs/evaluate",
        "help": "Folder of runs; each one gets a number in it.",
    },
}

COLUMNS = ("n", "right", "95 %", "ties", "longer", "shorter", "r", "ECE")
LEGEND = """\
right: in %, a tie is half right. 95 %: bootstrap over prompts; Wilson's where
all resamples agree. longer, shorter: what preferring more, or fewer, words
would get. r: rank correlation of score and words. ECE: how far being sure is
from being right."""


def run(arguments: list[str], choose: Callable[[Path], Path]) -> None:
    """Do the evaluation that is named first.

    Args:
        arguments: of the command line, behind ``evaluate``.
        choose: makes a numbered folder in a folder of runs.

    Raises:
        ConfigError: if the settings are not sound.
    """
    evaluations: dict[str, Any] = {
        "reward-bench": (SETTINGS, _refuse, reward_bench),
        "cross-modal": (cross_modal.SETTINGS, cross_modal.refuse, cross_modal.run),
        "win-rate": (win_rate.SETTINGS, win_rate.refuse, win_rate.run),
    }
    name = " ".join(arguments[:1])
    if name in ("-h", "--help"):
        print(f"lit-align evaluate {' | '.join(evaluations)}; each of them has --help")
        return
    if name not in evaluations:
        raise ConfigError(f"there is no evaluation {name!r}{near('', evaluations)}")
    settings, refuse, evaluate = evaluations[name]
    evaluate(*understood(f"lit-align evaluate {name}", settings, arguments[1:], choose, refuse))


def _refuse(made: Any) -> None:
    if (made.reward is None) == (made.feedback is None):
        raise ConfigError(
            f"there {'are two judges' if made.reward else 'is no judge'}; give --reward or --feedback"
        )


def reward_bench(made: Any, folder: Path) -> dict[str, Any]:
    """Judge, print the table, and write figures and pictures into ``folder``; gives the figures."""
    from rich.console import Console
    from rich.progress import track

    from lit_align.evaluation.plots import plot_reliability, plot_scores

    console = Console()
    groups = comparisons(made.data, made.format, made.max_malformed, shown(console, folder))

    def each(starts: Iterable[int]) -> Iterable[int]:
        return track(starts, "judging", console=console)

    about: dict[str, Any]
    if made.reward is not None:
        verdicts, cut = judge_with_reward(made.reward, groups, made.batch_size, each)
        about = {"reward": repr(made.reward), "data": made.data, "responses_cut": cut}
    else:
        opinions = label_groups(made.feedback, groups, "pairs", made.batch_size, each)
        verdicts, _ = verdicts_from_feedback(groups, opinions)
        about = {
            "feedback": repr(made.feedback),
            "data": made.data,
            "asked": summarize_results(opinions),
        }
    found = {**about, "length": "words", **build_report(verdicts)}
    (folder / "reward_bench.json").write_text(
        json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    plot_scores(verdicts, folder / "scores.png")
    plot_reliability(found["calibration"], folder / "reliability.png")
    _print(console, found)
    print(f"The run is in {folder}: reward_bench.json, ledger.json, scores.png, reliability.png.")
    return found


def _print(console: Console, found: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(
        "",
        *COLUMNS,
        title=found.get("reward") or found["feedback"],
        box=None,
        collapse_padding=True,
        pad_edge=False,
    )
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for cells in _rows(found):
        table.add_row(*cells)
    console.print(table, highlight=False)
    console.print(LEGEND, style="dim", highlight=False)
    if "asked" in found:
        tell(console, found["asked"])
    elif found["responses_cut"]:
        console.print(
            f"{found['responses_cut']:,} responses were longer than the judge reads, and were cut."
        )


def _rows(found: dict[str, Any]) -> Iterator[list[str]]:
    """Subsets and all of them; below, what is made of subsets."""
    for name, of in [*found["subsets"].items(), ("all", found["all"])]:
        alone = [_percent(of["longer_wins"]), _percent(of["shorter_wins"])]
        rest = [
            "-" if value is None else f"{value:.2f}"
            for value in (of["length_correlation"], of["calibration_error"])
        ]
        yield [name, str(of["comparisons"]), *_accuracy(of), str(of["ties"]), *alone, *rest]
    yield []
    for name, of in found["sections"].items():
        yield [
            name if of["subsets"] == of["of"] else f"{name} ({of['subsets']} of {of['of']})",
            "",
            *_accuracy(of),
        ]
    if found["score"]:
        yield ["score", "", *_accuracy(found["score"])]
    for name, of in found["refusals"].items():
        yield [name, "", *_accuracy(of)]


def _accuracy(of: dict[str, Any]) -> list[str]:
    return [_percent(of["accuracy"]), "\u2013".join(map(_percent, of["interval"]))]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
