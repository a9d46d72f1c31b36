"""Plots of a judge: the distribution of its scores, and its reliability diagram."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lit_align.feedback.verdicts import Verdicts
from lit_align.plotting import saved_subplots


def plot_scores(verdicts: Verdicts, path: Path) -> None:
    """Histograms of the scores of better and worse responses."""
    scores = np.concatenate([verdicts.chosen, verdicts.rejected])
    edges = np.histogram_bin_edges(scores, bins=40).tolist()
    with saved_subplots(path, figsize=(5, 3.5)) as (_, axis):
        axis.hist(verdicts.chosen, edges, alpha=0.6, label="chosen")
        axis.hist(verdicts.rejected, edges, alpha=0.6, label="rejected")
        axis.set(title="scores", xlabel="score", ylabel="responses")
        axis.grid(alpha=0.3)
        axis.legend()


def plot_reliability(calibration: dict[str, Any], path: Path) -> None:
    """Accuracy by confidence, and the number of comparisons at each confidence."""
    confidence, accuracy = _column(calibration, "sure"), _column(calibration, "accuracy")
    lower_edges, counts = _column(calibration, "from"), _column(calibration, "count")
    options = {"figsize": (5, 4.5), "sharex": True, "height_ratios": (3, 1)}
    with saved_subplots(path, 2, **options) as (_, (axis, count_axis)):
        axis.plot([0.5, 1], [0.5, 1], "--", color="grey", label="calibrated")
        axis.plot(confidence, accuracy, "o-", label=f"judge, off by {calibration['error']:.3f}")
        axis.set(title="reliability", ylabel="accuracy", ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
        axis.legend()
        count_axis.bar(lower_edges, counts, width=0.05, align="edge", edgecolor="white")
        count_axis.set(
            xlabel="confidence: sigmoid of the difference in score",
            ylabel="comparisons",
            xlim=(0.48, 1.02),
        )


def _column(calibration: dict[str, Any], name: str) -> list[float]:
    return [entry[name] for entry in calibration["bins"]]
