"""Cross-validate an alignment: does a linear probe on the backbone's features improve?"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_align.orca.backbones import Backbone
from lit_align.orca.distances import DatasetDistance
from lit_align.orca.embedders import Embedder
from lit_align.orca.feature_alignment import AlignmentBatch, FeatureAlignment, align_embedder
from lit_align.orca.heads import Head
from lit_align.orca.source_sets import SourceSet

BATCH_SIZE = 64  # examples that the backbone reads at once
RIDGE_STRENGTHS = (1.0, 10.0, 100.0, 1000.0)


def cross_validate_alignment(
    embedder: Embedder,
    backbone: Backbone,
    head: Head,
    batch: AlignmentBatch,
    source: SourceSet,
    alignment: FeatureAlignment,
    distance: DatasetDistance,
) -> dict[str, Any]:
    """Cross-validated loss of the probe without and with alignment, and whether alignment is kept."""
    losses_without, losses_with = [], []
    features = extract_features(embedder, backbone, head, batch)
    for fold in torch.unique(batch.fold):
        is_train = batch.fold != fold
        aligned = copy.deepcopy(embedder)
        align_embedder(aligned, batch.take(is_train), source, alignment, distance)
        losses_without.append(_probe_losses(head, features, batch.y, is_train))
        aligned_features = extract_features(aligned, backbone, head, batch)
        losses_with.append(_probe_losses(head, aligned_features, batch.y, is_train))
    without, aligned_losses = _best_ridge(losses_without), _best_ridge(losses_with)
    gain = without - aligned_losses
    error = float(gain.std() / len(gain) ** 0.5)
    return {
        "without": float(without.mean()),
        "with": float(aligned_losses.mean()),
        "gain": float(gain.mean()),
        "error": error,
        # two errors: on heartbeats, gains of one to two errors made validation worse
        "kept": bool(gain.mean() > 2 * error),
    }


class HeadFeatures(NamedTuple):
    """Features that a head would get of each example, ``[n, d]`` or ``[n, tokens, d]``, and the grid of the tokens."""

    values: Tensor
    grid: tuple[int, ...] | None


@torch.no_grad()
def extract_features(
    embedder: Embedder, backbone: Backbone, head: Head, batch: AlignmentBatch
) -> HeadFeatures:
    """Features that the head would get of each example."""
    features, grid = [], None
    inputs = torch.split(batch.x, BATCH_SIZE)
    masks = torch.split(batch.mask, BATCH_SIZE)
    for x, mask in zip(inputs, masks, strict=True):
        embedded = embedder(x, mask)
        features.append(head.pool_states(backbone(embedded), embedded))
        grid = embedded.grid
    return HeadFeatures(torch.cat(features), grid)


def _probe_losses(head: Head, features: HeadFeatures, y: Tensor, is_train: Tensor) -> list[float]:
    """Loss of the probe for each strength of the ridge."""
    return [probe_features(head, features, y, is_train, ridge) for ridge in RIDGE_STRENGTHS]


def _best_ridge(losses: list[list[float]]) -> Tensor:
    """Loss in each fold with the ridge of lowest mean loss, from losses ``[folds, ridges]``."""
    table = torch.tensor(losses)
    return table[:, table.mean(0).argmin()]


def probe_features(
    head: Head, features: HeadFeatures, y: Tensor, is_train: Tensor, ridge: float
) -> float:
    r"""Mean loss of a linear probe on the examples that it is not fitted to.

    .. math:: \frac1n\sum_i \ell(W z_i + b, y_i) + \frac{\lambda}{2n}\lVert W\rVert^2

    where z are the features, standardised by those that it is fitted to.

    Args:
        head: for its loss; it is not changed.
        features: of all examples.
        y: targets.
        is_train: which examples to fit, ``[n]``.
        ridge: strength λ of the regularization.
    """
    probe = copy.deepcopy(head)
    axes = tuple(range(features.values.dim() - 1))
    std, mean = torch.std_mean(features.values[is_train], axes, correction=0)
    std = torch.where(std > 1e-6, std, 1.0)
    z = (features.values - mean) / std
    for parameter in probe.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=100, line_search_fn="strong_wolfe")
    num_train = int(is_train.sum())

    def closure() -> Tensor:
        optimizer.zero_grad()
        predicted = probe.predict(z[is_train], features.grid)
        loss: Tensor = probe.loss(predicted, y[is_train]).mean()
        penalty = ridge * probe.linear.weight.square().sum()
        loss = loss + penalty / (2 * num_train)
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        predicted = probe.predict(z[~is_train], features.grid)
        return float(probe.loss(predicted, y[~is_train]).mean())
