"""Run an alignment, decide whether to keep it, and report how it changed the features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_align.orca.backbones import Backbone
from lit_align.orca.distances import DatasetDistance
from lit_align.orca.embedders import Embedder
from lit_align.orca.feature_alignment import AlignmentBatch, FeatureAlignment, align_embedder
from lit_align.orca.heads import Head
from lit_align.orca.probe import cross_validate_alignment
from lit_align.orca.source_sets import SourceSet
from lit_align.orca.transport import DatasetStats, class_distances
from lit_align.plotting import saved_subplots

LOGGED = ("distance", "fisher", "token_norm")


class FeatureCloud(NamedTuple):
    """The embedder's features at one moment.

    Args:
        features: mean token of each input, ``[n, d]``.
        metrics: to report.
    """

    features: Tensor
    metrics: dict[str, Any]


@torch.no_grad()
def measure_features(
    embedder: Embedder, batch: AlignmentBatch, source: SourceSet, distance: DatasetDistance
) -> FeatureCloud:
    """Features of a batch and their metrics.

    ``distance`` to the source; ``nearest`` of each class, the squared distance of its normal distribution to that of
    the nearest class of the source; ``fisher``, the variance between classes over that within; ``token_norm``.
    """
    embedded = embedder(batch.x, batch.mask)
    features, classes = embedded.pooled(), batch.classes
    result = distance(source.x, source.y, features, classes)
    source_stats = DatasetStats.from_labels(source.x.double(), source.y)
    target_stats = DatasetStats.from_labels(features.double(), classes)
    nearest = class_distances(source_stats, target_stats).amin(0)
    class_means = DatasetStats.from_labels(features, classes).means[classes]
    within = (features - class_means).square().sum()
    between = (class_means - features.mean(0)).square().sum()
    metrics = {
        "distance": float(result.value),
        "nearest": nearest.tolist(),
        "fisher": float(between / within.clamp_min(1e-12)),
        "token_norm": float(embedded.tokens[embedded.mask].norm(dim=-1).mean()),
    }
    if "epsilon" in result.parts:
        metrics["epsilon"] = float(result.parts["epsilon"])
    return FeatureCloud(features, metrics)


class AlignmentResult(NamedTuple):
    """The report of an alignment, for ``summary.json``, and the features before and after it."""

    report: dict[str, Any]
    before: FeatureCloud
    after: FeatureCloud

    @property
    def verdict(self) -> str:
        """``kept`` or ``refused``."""
        return "kept" if self.report["kept"] else "refused"


def run_alignment(
    embedder: Embedder,
    backbone: Backbone,
    head: Head,
    batch: AlignmentBatch,
    source: SourceSet,
    alignment: FeatureAlignment,
) -> AlignmentResult:
    """Align the embedder to the source, and undo that if cross-validation finds no improvement."""
    distance: DatasetDistance = replace(alignment.distance)  # type: ignore[type-var]
    before = measure_features(embedder, batch, source, distance)
    probe: dict[str, Any] = {}
    if alignment.folds:
        probe = cross_validate_alignment(
            embedder, backbone, head, batch, source, alignment, distance
        )
    keep = probe.get("kept", True)
    weights = {name: value.clone() for name, value in embedder.state_dict().items()}
    align_embedder(embedder, batch, source, alignment, distance)
    after = measure_features(embedder, batch, source, distance)
    if not keep:
        embedder.load_state_dict(weights)
    report = {
        "source": source.provenance,
        "kept": keep,
        "probe": probe,
        "before": before.metrics,
        "after": after.metrics,
        "classes": list(head.target.classes),
        "token_norm of the model": float(backbone.sample_tokens().float().norm(dim=-1).mean()),
    }
    return AlignmentResult(report, before, after)


def with_saved_epsilon(distance: DatasetDistance, metrics: dict[str, Any]) -> DatasetDistance:
    """The distance with the epsilon in ``metrics``, so that a resumed run has the same loss."""
    if "epsilon" not in metrics:
        return replace(distance)  # type: ignore[type-var]
    return replace(distance, epsilon=metrics["epsilon"])  # type: ignore[type-var]


def describe_alignment(result: AlignmentResult) -> str:
    """One line: whether the alignment is kept, why, and how it changed the features."""
    probe = result.report["probe"]
    before = result.before.metrics
    after = result.after.metrics
    reason = "no cross-validation"
    if probe:
        reason = (
            f"loss of the probe {probe['without']:.4f} without, {probe['with']:.4f} with, "
            f"error {probe['error']:.4f}"
        )
    changes = []
    for name in LOGGED:
        changes.append(f"{name} {before[name]:.3g} to {after[name]:.3g}")
    return f"alignment is {result.verdict} ({reason}); {', '.join(changes)}"


def alignment_metrics(report: dict[str, Any]) -> dict[str, float]:
    """The numbers of a report, named for a logger."""
    metrics = {}
    for name, value in report["probe"].items():
        metrics[f"alignment/{name}"] = float(value)
    for moment in ("before", "after"):
        for name, value in report[moment].items():
            if isinstance(value, float):
                metrics[f"alignment/{name} {moment}"] = value
    return metrics


def plot_alignment(result: AlignmentResult, source: SourceSet, classes: Tensor, path: Path) -> None:
    """Plot the source, and the features before and after, on the two principal axes of them all."""
    clouds = {"before alignment": result.before, f"after, {result.verdict}": result.after}
    rows = torch.cat([source.x, result.before.features, result.after.features])
    rows = rows.cpu().double()
    centre = rows.mean(0)
    axes = torch.linalg.svd(rows - centre, full_matrices=False).Vh[:2]

    def project(features: Tensor) -> list[list[float]]:
        deviations = features.cpu().double() - centre
        coordinates: list[list[float]] = (deviations @ axes.T).T.tolist()
        return coordinates

    layout = {"figsize": (10, 4), "sharex": True, "sharey": True}
    with saved_subplots(path, 1, len(clouds), **layout) as (_, panels):
        for panel, (name, cloud) in zip(panels, clouds.items(), strict=True):
            panel.scatter(*project(source.x), c="lightgrey", s=6, label="source")
            panel.scatter(
                *project(cloud.features),
                c=classes.tolist(),
                s=12,
                cmap="tab10",
                label="target, by class",
            )
            values = []
            for key in LOGGED:
                values.append(f"{key} {round(cloud.metrics[key], 3):g}")
            panel.set_title(f"{name}\n" + ", ".join(values), fontsize=10)
        panels[0].legend(fontsize=8)
