"""Which of a run's metrics are drawn together: panels of one unit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Curve = tuple[Sequence[int], Sequence[float]]

VALIDATION = "eval_"
REWARD_PART = re.compile(r"rewards/[A-Z]\w*")
FIRST, SECOND = "#3b82c4", "#d9730d"


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


class Line(NamedTuple):
    """One curve of a panel.

    Args:
        label: in the legend.
        curve: steps and values.
        color: of the line.
        is_validation: whether the values are of the validation data.
    """

    label: str
    curve: Curve
    color: str
    is_validation: bool


def filled_panels(curves: Mapping[str, Curve]) -> list[tuple[Panel, list[Line]]]:
    """Each panel of which a metric was logged at two steps or more, with its lines.

    Example:
        >>> ((panel, lines),) = filled_panels({"loss": ([0, 1], [0.7, 0.6]), "lr": ([0], [1e-5])})
        >>> panel.title, [line.label for line in lines]
        ('Loss', ['training'])
    """
    filled = []
    for panel in (*PANELS, *_reward_parts(curves)):
        lines = _lines(panel, curves)
        if lines:
            filled.append((panel, lines))
    return filled


def _lines(panel: Panel, curves: Mapping[str, Curve]) -> list[Line]:
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
            lines.append(Line(label, curve, color, bool(prefix)))
    return lines if has_curve else []


def _reward_parts(curves: Mapping[str, Curve]) -> list[Panel]:
    """A panel for each part of a reward, which are named after classes."""
    names = sorted(name for name in curves if REWARD_PART.fullmatch(name))
    return [Panel(name.partition("/")[2], "score", {name: "reward"}) for name in names]
