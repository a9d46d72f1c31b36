"""The figures of a suite as a table on the screen, as JSON, and as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lit_align.evaluation.suite_run import Asked, Cell
from lit_align.functional.ratios import Estimate

if TYPE_CHECKING:
    from rich.table import Table

Report = dict[str, dict[str, dict[str, Cell]]]
"""Cells by task, figure and model."""

LEGEND = (
    "Shares, with 95 % intervals: bootstrap over prompts, Wilson's where all resamples agree. Below them the "
    "difference to the first column over the same prompts; * where its interval leaves 0 out. Up or down: which way is "
    "better."
)

ARROWS = {True: " \N{UPWARDS ARROW}", False: " \N{DOWNWARDS ARROW}", None: ""}


class Line(NamedTuple):
    """One figure of the table.

    Args:
        task: its task, for the first figure of one; empty after it.
        figure: its name, with the direction that is better.
        cells: a value with its interval, by model.
        differences: to the first model, likewise; empty for the first.
        counts: prompts, by model.
    """

    task: str
    figure: str
    cells: list[str]
    differences: list[str]
    counts: list[int]


def lines_of(report: Report, tasks: Sequence[Asked]) -> list[Line]:
    """The table's rows."""
    lines = []
    for question_set in tasks:
        for number, (figure, cells) in enumerate(report[question_set.name].items()):
            direction = ARROWS[next(iter(cells.values())).higher_is_better]
            lines.append(
                Line(
                    "" if number else question_set.name,
                    f"{figure}{direction}",
                    [format_estimate(cell.estimate) for cell in cells.values()],
                    [format_difference(cell.difference) for cell in cells.values()],
                    [cell.prompts for cell in cells.values()],
                )
            )
    return lines


def format_estimate(estimate: Estimate) -> str:
    """A value with its interval.

    Example:
        >>> format_estimate(Estimate(0.5, [0.25, 0.75])), format_estimate(Estimate(None, None))
        ('0.500 [0.250, 0.750]', '-')
    """
    if estimate.value is None:
        return "-"
    if estimate.interval is None:
        return f"{estimate.value:.3f}"
    low, high = estimate.interval
    return f"{estimate.value:.3f} [{low:.3f}, {high:.3f}]"


def format_difference(difference: Estimate | None) -> str:
    """A signed difference with its interval, marked where that leaves 0 out; nothing for None.

    Example:
        >>> format_difference(Estimate(0.25, [0.125, 0.375])), format_difference(Estimate(0.0, [-0.1, 0.1]))
        ('+0.250 [+0.125, +0.375] *', '+0.000 [-0.100, +0.100]')
    """
    if difference is None or difference.value is None:
        return ""
    if difference.interval is None:
        return f"{difference.value:+.3f}"
    low, high = difference.interval
    mark = " *" if low > 0 or high < 0 else ""
    return f"{difference.value:+.3f} [{low:+.3f}, {high:+.3f}]{mark}"


def suite_table(lines: Sequence[Line], names: Sequence[str]) -> Table:
    """The table on the screen."""
    from rich.table import Table
    from rich.text import Text

    table = Table(caption=LEGEND, caption_justify="left")
    table.add_column("task", overflow="fold")
    table.add_column("figure", overflow="fold")
    table.add_column("prompts", justify="right")
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for number, line in enumerate(lines):
        if line.task and number:
            table.add_section()
        cells = []
        for cell, difference in zip(line.cells, line.differences, strict=True):
            cells.append(Text("\n".join(filter(None, (cell, difference)))))
        counts = _joined_counts(line.counts)
        table.add_row(Text(line.task), Text(line.figure), counts, *cells)
    return table


def suite_json(report: Report) -> dict[str, Any]:
    """The figures by task, figure and model, as JSON has them."""
    result: dict[str, Any] = {}
    for task, figures in report.items():
        result[task] = {}
        for figure, cells in figures.items():
            result[task][figure] = {name: _cell_json(cell) for name, cell in cells.items()}
    return result


def suite_page(
    lines: Sequence[Line], names: Sequence[str], runs: Sequence[str], notes: Sequence[str]
) -> str:
    """The page; everything that comes from a run or from data is escaped.

    Args:
        lines: of the table.
        names: of the models.
        runs: folders of their runs.
        notes: sentences below the table.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lit_align.evaluation", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("suite.html").render(
        lines=lines,
        names=names,
        runs=dict(zip(names, runs, strict=True)),
        notes=notes,
        legend=LEGEND,
        joined_counts=_joined_counts,
    )


def _joined_counts(counts: Sequence[int]) -> str:
    """One number where all models have it, else all of them."""
    return (
        f"{counts[0]:,}" if len(set(counts)) == 1 else ", ".join(f"{count:,}" for count in counts)
    )


def _cell_json(cell: Cell) -> dict[str, Any]:
    content = {**cell.estimate._asdict(), "prompts": cell.prompts}
    content["higher_is_better"] = cell.higher_is_better
    if cell.difference is not None:
        content["difference"] = cell.difference._asdict()
    return content
