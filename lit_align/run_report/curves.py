"""The curves of a run: as SVG that takes the colours of the page around it, and as one PNG."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_align.plotting import saved_subplots
from lit_align.run_report.panels import Curve, Line, Panel, filled_panels

INK = "#010203"  # stands for the page's own colour of text
WIDTH, HEIGHT = 5.2, 3.0  # inches
COLUMNS = 3  # of the PNG
MARGINS = {"left": 0.16, "right": 0.98, "bottom": 0.16, "top": 0.97}
"""Of a panel, in shares of it: room for numbers of six digits."""
TITLE = 0.1
"""Room for a heading, in shares of a panel."""
VALIDATION_STYLE: dict[str, Any] = {"linestyle": "--", "marker": "o", "markersize": 4}
IDENTIFIERS = re.compile(r'(id="|url\(#|href="#)')


def draw_panels(curves: Mapping[str, Curve]) -> list[tuple[str, str]]:
    """Title and SVG of each panel of which a metric was logged at two steps or more."""
    figures: list[tuple[str, str]] = []
    for panel, lines in filled_panels(curves):
        figures.append((panel.title, _draw_svg(panel, lines, f"p{len(figures)}")))
    return figures


def plot_curves(curves: Mapping[str, Curve], path: Path) -> bool:
    """Draw all panels into one PNG file.

    Args:
        curves: steps and values of each metric.
        path: of the file; nothing is written where no metric was logged at two steps.

    Returns:
        Whether there was something to draw.
    """
    panels = filled_panels(curves)
    if not panels:
        return False
    columns = min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (WIDTH * columns, HEIGHT * rows)
    # a layout that looks for the best margins draws everything twice, in every run that ends
    options = {"figsize": size, "squeeze": False, "layout": "none"}
    with saved_subplots(path, rows, columns, **options) as (figure, axes):
        figure.subplots_adjust(
            left=MARGINS["left"] / columns, right=1 - (1 - MARGINS["right"]) / columns,
            bottom=MARGINS["bottom"] / rows, top=1 - TITLE / rows, wspace=0.25, hspace=0.45,
        )  # fmt: skip
        cells = axes.flat
        for axis, (panel, lines) in zip(cells, panels, strict=False):
            # without a place matplotlib looks for what is in the title's way, whenever it draws
            axis.set_title(panel.title, y=1.0)
            _draw_lines(axis, panel, lines)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
    return True


def _draw_lines(axis: Any, panel: Panel, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import MaxNLocator

    for line in lines:
        marks = VALIDATION_STYLE if line.is_validation else {}
        axis.plot(*line.curve, color=line.color, label=line.label, **marks)
    axis.set(xlabel="optimizer steps", ylabel=panel.unit)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axis.legend(frameon=False)


def _draw_svg(panel: Panel, lines: Sequence[Line], prefix: str) -> str:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style: Any = _style()  # matplotlib's types list the names of all settings
    with matplotlib.rc_context(style):
        figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT), layout="none")
        figure.subplots_adjust(**MARGINS)
        try:
            _draw_lines(axis, panel, lines)
            return _to_svg(figure, prefix)
        finally:
            plt.close(figure)


def _style() -> dict[str, Any]:
    colors = (
        "text.color",
        "axes.labelcolor",
        "axes.edgecolor",
        "xtick.color",
        "ytick.color",
        "grid.color",
    )
    return {
        **dict.fromkeys(colors, INK),
        "svg.fonttype": "none",
        "svg.hashsalt": "lit-align",
        "font.family": "sans-serif",
    }


def _to_svg(figure: Any, prefix: str) -> str:
    """The figure as an element of a page: without its heading, and with names that no other figure has."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return IDENTIFIERS.sub(lambda match: match[0] + prefix, svg)
