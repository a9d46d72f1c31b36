"""``lit-align evaluate``: how good a judge is, on the screen and in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentError, ArgumentParser

from lit_align.data.formats import Format
from lit_align.data.ledger import Ledger
from lit_align.errors import ConfigError
from lit_align.evaluation.reward_bench import comparisons, judge, report
from lit_align.explain import explain, near
from lit_align.rewards import Reward

if TYPE_CHECKING:
    from rich.console import Console

SETTINGS: dict[str, dict[str, Any]] = {
    "reward": {"type": Reward, "required": True, "help": "The judge, by its name."},
    "data": {
        "type": str,
        "nargs": "+",
        "required": True,
        "help": "Files or hub data sets of comparisons or rankings, such as allenai/reward-bench:filtered.",
    },
    "format": {"type": Format | None, "default": None, "help": "The layout of the rows; null finds it."},
    "max_lost": {"type": float, "default": 0.01, "help": "Share of malformed rows at which to stop."},
    "batch_size": {"type": int, "default": 16, "help": "Prompts that the judge is given at once."},
    "run": {"type": str, "default": "runs/evaluate", "help": "Folder of runs; each one gets a number in it."},
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
    if arguments[:1] != ["reward-bench"]:
        raise ConfigError(f"there is no evaluation {' '.join(arguments[:1])!r}{near('', ['reward-bench'])}")
    parser = ArgumentParser("lit-align evaluate reward-bench", exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="YAML with these settings.")
    for name, setting in SETTINGS.items():
        parser.add_argument(f"--{name}", **setting)
    try:
        settings = parser.parse_args(arguments[1:])
        made = parser.instantiate(settings)
    except (ArgumentError, ValueError) as error:  # the latter is what a class says against its settings
        raise ConfigError(explain(str(error), SETTINGS)) from error
    if made.batch_size < 1 or not 0 <= made.max_lost <= 1:
        raise ConfigError(
            f"batch_size is {made.batch_size} and max_lost {made.max_lost}; they are at least 1, and from 0 to 1"
        )
    folder = choose(Path(made.run))
    parser.save(settings, str(folder / "config.yaml"), skip_none=False)
    reward_bench(made.reward, made.data, folder, made.format, made.max_lost, made.batch_size)


def reward_bench(
    reward: Reward, data: list[str], folder: Path, format: Format | None, max_lost: float, batch_size: int
) -> dict[str, Any]:
    """Judge, print the table, and write figures and pictures into ``folder``; gives the figures."""
    from rich.console import Console
    from rich.progress import track

    from lit_align.evaluation.plots import plot_reliability, plot_scores

    console = Console()

    def show(ledger: Ledger) -> None:
        console.print(ledger.table(), highlight=False, markup=False)
        (folder / "ledger.json").write_text(ledger.to_json() + "\n", encoding="utf-8")

    groups = comparisons(data, format, max_lost, show)
    verdicts, cut = judge(reward, groups, batch_size, lambda starts: track(starts, "judging", console=console))
    found = {"reward": repr(reward), "data": data, "responses_cut": cut, "length": "words", **report(verdicts)}
    (folder / "reward_bench.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    plot_scores(verdicts, folder / "scores.png")
    plot_reliability(found["calibration"], folder / "reliability.png")
    _print(console, found)
    print(f"The run is in {folder}: reward_bench.json, ledger.json, scores.png, reliability.png.")
    return found


def _print(console: Console, found: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("", *COLUMNS, title=found["reward"], box=None, collapse_padding=True, pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for cells in _rows(found):
        table.add_row(*cells)
    console.print(table, highlight=False)
    console.print(LEGEND, style="dim", highlight=False)
    if found["responses_cut"]:
        console.print(f"{found['responses_cut']:,} responses were longer than the judge reads, and were cut.")


def _rows(found: dict[str, Any]) -> Iterator[list[str]]:
    """Subsets and all of them; below, what is made of subsets."""
    for name, of in [*found["subsets"].items(), ("all", found["all"])]:
        alone = [_percent(of["longer_wins"]), _percent(of["shorter_wins"])]
        rest = [
            "-" if value is None else f"{value:.2f}" for value in (of["length_correlation"], of["calibration_error"])
        ]
        yield [name, str(of["comparisons"]), *_accuracy(of), str(of["ties"]), *alone, *rest]
    yield []
    for name, of in found["sections"].items():
        yield [name if of["subsets"] == of["of"] else f"{name} ({of['subsets']} of {of['of']})", "", *_accuracy(of)]
    if found["score"]:
        yield ["score", "", *_accuracy(found["score"])]
    for name, of in found["refusals"].items():
        yield [name, "", *_accuracy(of)]


def _accuracy(of: dict[str, Any]) -> list[str]:
    return [_percent(of["accuracy"]), "\u2013".join(map(_percent, of["interval"]))]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
