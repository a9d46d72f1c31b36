"""Plot of gold and proxy reward against KL, with the fitted curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_align.evaluation.frontier import Curve, FrontierRun
from lit_align.plotting import saved_subplots

CURVE_POINTS = 200
MARKERS = "os^Dv"


def plot_frontier(
    runs: Sequence[FrontierRun],
    summaries: Sequence[Mapping[str, Any]],
    names: tuple[str, str],
    path: Path,
) -> None:
    """Gold on the left and proxy on the right; a colour for each method, a marker for each of its runs.

    Args:
        runs: the points.
        summaries: of `summarize`, with the curves of each run.
        names: of the gold reward and of the proxy.
        path: of the PNG file.
    """
    methods = list(dict.fromkeys(run.method for run in runs))
    largest = max(point.kl for run in runs for point in run.points)
    with saved_subplots(path, 1, 2, figsize=(10, 4), sharex=True) as (_, axes):
        for axis, kind, name in zip(axes, ("gold", "proxy"), names, strict=True):
            axis.set_xscale("function", functions=(_root, np.square))
            num_drawn = dict.fromkeys(methods, 0)
            for run, summary in zip(runs, summaries, strict=True):
                color = f"C{methods.index(run.method)}"
                _draw_points(axis, run, kind, color, num_drawn[run.method])
                _draw_curve(axis, summary, kind, color)
                num_drawn[run.method] += 1
            axis.set(
                title=f"{kind}: {name}", xlabel="KL from the initial policy, nats per response"
            )
            axis.set_xticks(_ticks(largest))
            axis.grid(alpha=0.3)
        axes[0].set_ylabel("mean reward of a response")
        axes[0].legend(fontsize=8)


def _draw_points(axis: Any, run: FrontierRun, kind: str, color: str, number: int) -> None:
    """The points of the run of this number among those of its method; the first is in the legend."""
    kl = [max(point.kl, 0.0) for point in run.points]
    rewards = [getattr(point, kind) for point in run.points]
    label = run.method if number == 0 else None
    marker = MARKERS[number % len(MARKERS)]
    axis.plot(kl, rewards, marker, color=color, markersize=4, alpha=0.5, label=label)


def _draw_curve(axis: Any, summary: Mapping[str, Any], kind: str, color: str) -> None:
    """The fitted curve, and for gold a vertical line where it was seen to turn."""
    fields = summary[f"{kind}_curve"]
    if fields is None:
        return
    kl = np.linspace(0, math.sqrt(max(summary["largest_kl"], 0.0)), CURVE_POINTS) ** 2
    axis.plot(kl, Curve(**fields).reward(kl), color=color, linewidth=1)
    turn = summary["turn"]
    if kind == "gold" and turn is not None and turn["seen"]:
        label = f"turns at {turn['kl']:.1f} nats"
        axis.axvline(turn["kl"], color=color, linestyle=":", linewidth=1, label=label)


def _root(kl: Any) -> Any:
    return np.sqrt(np.maximum(kl, 0.0))


def _ticks(largest: float) -> list[float]:
    """0, 1, 4, 16, ... up to the largest KL, at equal ratios on the axis of roots; quarters where it is small."""
    first = 1.0 if largest >= 1 else 1 / 16
    ticks = [0.0, first]
    while 4 * ticks[-1] <= largest:
        ticks.append(4 * ticks[-1])
    return ticks
