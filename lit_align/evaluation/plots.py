"""What figures about a judge do not show: how its scores are spread, and whether it is right as often as it is sure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from lit_align.evaluation.reward_bench import Verdicts


def plot_scores(verdicts: Verdicts, picture: Path) -> None:
    """Draw the scores of better and worse responses as histograms over each other."""
    figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
    edges = np.histogram_bin_edges(
        np.concatenate([verdicts.chosen, verdicts.rejected]), bins=40
    ).tolist()
    axis.hist(verdicts.chosen, edges, alpha=0.6, label="chosen")
    axis.hist(verdicts.rejected, edges, alpha=0.6, label="rejected")
    axis.set(title="scores", xlabel="score", ylabel="responses")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(picture, dpi=120)
    plt.close(figure)


def plot_reliability(calibration: dict[str, Any], picture: Path) -> None:
    """Draw how often the judge is right by how sure it is, and how often it is so sure."""
    names = ("from", "sure", "accuracy", "count")
    start, sure, right, count = ([one[name] for one in calibration["bins"]] for name in names)
    figure, (axis, below) = plt.subplots(
        2, figsize=(5, 4.5), layout="constrained", sharex=True, height_ratios=(3, 1)
    )
    axis.plot([0.5, 1], [0.5, 1], "--", color="grey", label="calibrated")
    axis.plot(sure, right, "o-", label=f"judge, off by {calibration['error']:.3f}")
    axis.set(title="reliability", ylabel="accuracy", ylim=(-0.03, 1.03))
    axis.grid(alpha=0.3)
    axis.legend()
    below.bar(start, count, width=0.05, align="edge", edgecolor="white")
    below.set(
        xlabel="how sure: sigmoid of the difference in score",
        ylabel="comparisons",
        xlim=(0.48, 1.02),
    )
    figure.savefig(picture, dpi=120)
    plt.close(figure)
