"""Plots of a judge: the distribution of its scores, and its reliability diagram."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lit_align.feedback.verdicts import Verdicts
from lit_align.functional.statistics import wilson_interval
from lit_align.plotting import saved_subplots


def plot_scores(verdicts: Verdicts, path: Path) -> None:
    """Histograms of the scores of better and worse responses."""
    scores = np.concatenate([verdicts.chosen, verdicts.rejected])
    edges = np.histogram_bin_edges(scores, bins=40).tolist()
    with saved_subplots(path, figsize=(5, 3.5)) as (_, axis):
        axis.hist(verdicts.chosen, edges, alpha=0.6, label="chosen")
        axis.hist(verdicts.rejected, edges, alpha=0.6, label="rejected")
        axis.set(title="Scores", xlabel="score", ylabel="responses")
        axis.grid(alpha=0.3)
        axis.legend()


def plot_reliability(calibration: dict[str, Any], path: Path) -> None:
    """Accuracy by confidence with Wilson's 95 % intervals, and the number of comparisons at each confidence."""
    confidence, accuracy = _column(calibration, "sure"), _column(calibration, "accuracy")
    lower_edges, counts = _column(calibration, "from"), _column(calibration, "count")
    errors = interval_lengths(accuracy, counts)
    options = {"figsize": (5, 4.5), "sharex": True, "height_ratios": (3, 1)}
    with saved_subplots(path, 2, **options) as (_, (axis, count_axis)):
        axis.plot([0.5, 1], [0.5, 1], "--", color="grey", label="calibrated")
        label = f"judge, expected calibration error {calibration['error']:.3f}"
        axis.errorbar(confidence, accuracy, errors, fmt="o-", capsize=3, label=label)
        axis.set(title="Reliability", ylabel="accuracy, share of comparisons")
        axis.grid(alpha=0.3)
        axis.legend()
        count_axis.bar(lower_edges, counts, width=0.05, align="edge", edgecolor="white")
        count_axis.set(
            xlabel="confidence: sigmoid of the difference in score",
            ylabel="comparisons",
            xlim=(0.48, 1.02),
        )


def interval_lengths(accuracy: list[float], counts: list[float]) -> list[list[float]]:
    """How far Wilson's 95 % interval reaches below and above each accuracy.

    Args:
        accuracy: share of right verdicts in each bin.
        counts: comparisons in each bin.

    Example:
        >>> below, above = interval_lengths([0.5], [12])
        >>> round(below[0], 3), round(above[0], 3)
        (0.246, 0.246)
    """
    below, above = [], []
    for share, count in zip(accuracy, counts, strict=True):
        low, high = wilson_interval(share, int(count))
        below.append(max(0.0, share - low))
        above.append(max(0.0, high - share))
    return [below, above]


def _column(calibration: dict[str, Any], name: str) -> list[float]:
    return [entry[name] for entry in calibration["bins"]]
