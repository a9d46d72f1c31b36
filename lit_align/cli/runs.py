"""``lit-align runs``: runs beside each other, with the settings in which they differ and their main figures."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.errors import ConfigError
from lit_align.registry import closest_name
from lit_align.run_report.comparison import (
    Comparison,
    Run,
    compare_runs,
    find_runs,
    is_higher_better,
)
from lit_align.run_report.number_text import format_duration, format_figure
from lit_align.run_report.setting_differences import setting_text, short_names

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 10_000  # columns where nobody watches, so that no line is broken
BEST = "best"
NUM_FACTS = 4  # cells of a run before its figures


def run(arguments: list[str]) -> None:
    """Print a table for each stage, or JSON.

    Raises:
        ConfigError: if there are no runs, or none has what to sort by.
    """
    options = _parser().parse_args(arguments)
    folders = [Path(folder) for folder in options.folders]
    comparisons = compare_runs(find_runs(folders))
    if options.sort:
        _sort(comparisons, options.sort)
    if options.json:
        rows: list[dict[str, Any]] = []
        for comparison in comparisons:
            rows += _records(comparison)
        print(json.dumps(rows, indent=2, default=str))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    for comparison in comparisons:
        _print_table(comparison, folders, console)
        _print_notes(comparison, folders)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lit-align runs",
        allow_abbrev=False,
        description="Compare the runs in a folder: the settings in which they differ, and their main figures.",
    )
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        default=["runs"],
        help="of runs, such as runs/dpo, or of folders of runs (default: runs)",
    )
    parser.add_argument(
        "--sort",
        metavar="NAME",
        help="a figure, best first, or a setting, or steps or time",
    )
    parser.add_argument("--json", action="store_true", help="for programs: all figures of each run")
    return parser


def _sort(comparisons: Sequence[Comparison], name: str) -> None:
    """Sort the runs of each comparison that has a figure or setting of the name.

    Raises:
        ConfigError: if none has.
    """
    names: set[str] = set()
    is_sorted = False
    for comparison in comparisons:
        columns = _sortable(comparison)
        names |= columns.keys()
        if name in columns:
            is_sorted = True
            order = sorted(range(len(comparison.runs)), key=lambda i: _sort_key(columns[name][i]))
            comparison.runs = [comparison.runs[i] for i in order]
            for path, values in comparison.settings.items():
                comparison.settings[path] = [values[i] for i in order]
    if not is_sorted:
        closest = closest_name(name, names)
        hint = f"did you mean {closest}?" if closest else f"there are {', '.join(sorted(names))}"
        raise ConfigError(f"no figure or differing setting is called {name!r}; {hint}")


def _sortable(comparison: Comparison) -> dict[str, list[Any]]:
    """What runs can be sorted by: a value for each run, the smallest first."""
    runs = comparison.runs
    columns: dict[str, list[Any]] = {
        "steps": [run.steps for run in runs],
        "time": [run.seconds for run in runs],
    }
    for name in sorted({name for run in runs for name in run.figures}):
        values = [run.figures.get(name) for run in runs]
        columns[name] = [-value if value and is_higher_better(name) else value for value in values]
    names = short_names(list(comparison.settings))
    for path, values in comparison.settings.items():
        columns[path] = columns[names[path]] = values
    return columns


def _sort_key(value: Any) -> tuple[int, float, str]:
    """Numbers first, then texts, then what is missing or no number."""
    if isinstance(value, int | float) and not math.isnan(value):
        return 0, value, ""
    return (2, 0, "") if value is None or value != value else (1, 0, setting_text(value))


def _cells(comparison: Comparison, folders: Sequence[Path]) -> list[list[str]]:
    """The headings, and a row of cells for each run."""
    names = comparison.figure_names()
    settings = short_names(list(comparison.settings))
    rows = [["run", "state", "steps", "time", *names, *settings.values()]]
    for number, run in enumerate(comparison.runs):
        cells = [run_name(run, folders), run.state, _steps(run), _time(run)]
        cells += [format_figure(run.figures.get(name)) for name in names]
        if run.is_best:
            cells[NUM_FACTS] = f"{cells[NUM_FACTS]} {BEST}"
        cells += [setting_text(values[number]) for values in comparison.settings.values()]
        rows.append(cells)
    return rows


def _print_table(comparison: Comparison, folders: Sequence[Path], console: Console) -> None:
    """Print a row for each run, or a column where rows are wider than the terminal."""
    from rich.table import Table
    from rich.text import Text

    rows = _cells(comparison, folders)
    title = comparison.stage or None
    table = Table(*rows[0], title=title, title_justify="left")
    for run, cells in zip(comparison.runs, rows[1:], strict=True):
        table.add_row(*map(Text, cells), style="bold" if run.is_best else None)
    unlimited = console.options.update(max_width=FILE_WIDTH)
    if console.measure(table, options=unlimited).maximum > console.width:
        table = Table(title=title, title_justify="left", show_header=False)
        for _ in rows:
            table.add_column(overflow="fold")
        for column in zip(*rows, strict=True):
            table.add_row(*map(Text, column))
    console.print(table)


def _print_notes(comparison: Comparison, folders: Sequence[Path]) -> None:
    """Print which run is the best, and why others failed."""
    if comparison.verdict:
        print(comparison.verdict)
    for run in comparison.runs:
        if run.reason:
            print(f"{run_name(run, folders)} failed: {run.reason}")


def run_name(run: Run, folders: Sequence[Path]) -> str:
    """The folder of a run, below the folder that was named if that is only one."""
    if len(folders) == 1 and run.folder != folders[0]:
        return str(run.folder.relative_to(folders[0]))
    return str(run.folder)


def _steps(run: Run) -> str:
    return "-" if run.steps is None else f"{run.steps:,}"


def _time(run: Run) -> str:
    return "-" if run.seconds is None else format_duration(run.seconds)


def _records(comparison: Comparison) -> list[dict[str, Any]]:
    """The runs for programs."""
    records = []
    for number, run in enumerate(comparison.runs):
        settings = {path: values[number] for path, values in comparison.settings.items()}
        records.append(
            {
                "run": str(run.folder),
                "stage": run.stage,
                "state": run.state,
                "reason": run.reason,
                "steps": run.steps,
                "seconds": run.seconds,
                "best": run.is_best,
                "main": comparison.main and comparison.main.name,
                "figures": run.figures,
                "settings": settings,
            }
        )
    return records
