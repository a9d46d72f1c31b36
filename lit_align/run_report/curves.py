"""The curves of a run as SVG that takes the colours of the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Curve = tuple[Sequence[int], Sequence[float]]

INK = "#010203"  # stands for the page's own colour of text
FIRST, SECOND = "#3b82c4", "#d9730d"
WIDTH, HEIGHT = 5.2, 3.0  # inches
VALIDATION = "eval_"
VALIDATION_STYLE: dict[str, Any] = {"linestyle": "--", "marker": "o", "markersize": 4}
REWARD_PART = re.compile(r"rewards/[A-Z]\w*")
IDENTIFIERS = re.compile(r'(id="|url\(#|href="#)')


class Panel(NamedTuple):
    """A figure with one axis: related metrics of one unit.

    Args:
        title: of the figure.
        unit: of the vertical axis.
        metrics: the names in ``metrics.csv``, with their labels.
    """

    title: str
    unit: str
    metrics: Mapping[str, str]


PANELS = (
    Panel("Loss", "loss", {"loss": "training"}),
    Panel("Margin of implicit rewards", "nats times beta", {"rewards/margins": "margin"}),
    Panel(
        "Accuracy",
        "share of comparisons",
        {"rewards/accuracies": "accuracy", "accuracy": "accuracy"},
    ),
    Panel(
        "Log-probability of responses",
        "nats",
        {"logps/chosen": "chosen", "logps/rejected": "rejected"},
    ),
    Panel("Reward", "score", {"objective/scores": "reward"}),
    Panel("KL to the reference", "nats per response", {"objective/kl": "KL"}),
    Panel("Entropy", "nats per token", {"entropy": "entropy", "objective/entropy": "entropy"}),
    Panel("Length of responses", "tokens", {"objective/length": "mean"}),
    Panel("Learning rate", "learning rate", {"lr": "lr"}),
    Panel("Gradient norm", "norm", {"grad_norm": "norm before clipping"}),
)


def draw_panels(curves: Mapping[str, Curve]) -> list[tuple[str, str]]:
    """Title and SVG of each panel of which a metric was logged at two steps or more."""
    figures: list[tuple[str, str]] = []
    for panel in (*PANELS, *_reward_parts(curves)):
        lines = _lines(panel, curves)
        if lines:
            figures.append((panel.title, _draw(panel, lines, f"p{len(figures)}")))
    return figures


class _Line(NamedTuple):
    label: str
    curve: Curve
    color: str
    is_validation: bool


def _lines(panel: Panel, curves: Mapping[str, Curve]) -> list[_Line]:
    """The curves of a panel; none if each has one point only."""
    lines = []
    has_curve = False
    present = [name for name in panel.metrics if name in curves or VALIDATION + name in curves]
    for name, color in zip(present, (FIRST, SECOND), strict=False):
        for prefix in ("", VALIDATION):
            curve = curves.get(prefix + name)
            if curve is None:
                continue
            has_curve |= len(curve[0]) > 1
            label = panel.metrics[name]
            if prefix:
                label = "validation" if label == "training" else f"{label}, validation"
            lines.append(_Line(label, curve, color, bool(prefix)))
    return lines if has_curve else []


def _reward_parts(curves: Mapping[str, Curve]) -> list[Panel]:
    """A panel for each part of a reward, which are named after classes."""
    names = sorted(name for name in curves if REWARD_PART.fullmatch(name))
    return [Panel(name.partition("/")[2], "score", {name: "reward"}) for name in names]


def _draw(panel: Panel, lines: Sequence[_Line], prefix: str) -> str:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    style: Any = _style()  # matplotlib's types list the names of all settings
    with matplotlib.rc_context(style):
        figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
        try:
            for line in lines:
                marks = VALIDATION_STYLE if line.is_validation else {}
                axis.plot(*line.curve, color=line.color, label=line.label, **marks)
            axis.set(xlabel="optimizer steps", ylabel=panel.unit)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.grid(alpha=0.2)
            axis.spines[["top", "right"]].set_visible(False)
            if len(lines) > 1:
                axis.legend(frameon=False)
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
