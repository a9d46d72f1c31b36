"""Prediction heads, with the loss and the metric of each kind of target."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torchmetrics.aggregation import MeanMetric
from torchmetrics.metric import Metric

from lit_align.errors import ConfigError
from lit_align.orca.embedders import Embedder
from lit_align.orca.modalities import TargetSpec
from lit_align.orca.types import Embedded

METRIC_NAMES = {
    "class": "accuracy",
    "multilabel": "average_precision",
    "regression": "rmse",
    "dense": "relative_l2",
}


class Head(nn.Module):
    """A linear layer over the pooled tokens or, for a dense target, over each token for the patch that it covers.

    Numbers are predicted in the units of the targets, as deviations from their mean.

    Args:
        target: what is predicted; a dense target is not pooled.
        embedder: where the tokens come from.
        d_model: width of a token.
        pool: mean token, or the last one.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        target: TargetSpec,
        embedder: Embedder,
        d_model: int,
        pool: Literal["mean", "last"] = "mean",
    ) -> None:
        super().__init__()
        self.target, self.pool = target, pool
        self.metric_name = METRIC_NAMES[target.kind]
        self.patch: tuple[int, ...] = ()
        if target.kind == "dense":
            if not embedder.patch:
                raise ConfigError(
                    "a dense target needs tokens that tile the input, and those of "
                    f"{type(embedder).__name__} do not; choose Patches"
                )
            self.patch = embedder.patch
        self.linear = nn.Linear(d_model, target.outputs * prod(self.patch))
        shape = (-1, *[1] * len(self.patch))
        mean = torch.tensor(target.mean or (0.0,))
        std = torch.tensor(target.std or (1.0,))
        self.register_buffer("mean", mean.view(shape), persistent=False)
        self.register_buffer("std", std.view(shape), persistent=False)

    def forward(self, states: Tensor, embedded: Embedded) -> Tensor:
        """Predictions from the backbone's hidden states ``[n, tokens, d_model]``.

        They are logits ``[n, classes]``, or numbers ``[n, outputs]`` or ``[n, channels, ...]``.
        """
        return self.predict(self.pool_states(states, embedded), embedded.grid)

    def pool_states(self, states: Tensor, embedded: Embedded) -> Tensor:
        """Input of the linear layer: ``[n, d_model]``, or all tokens for a dense target."""
        if self.target.kind == "dense":
            return states
        if self.pool == "mean":
            return embedded._replace(tokens=states).pooled()
        rows = torch.arange(states.shape[0], device=states.device)
        columns = torch.arange(states.shape[1], device=states.device)
        return states[rows, (columns * embedded.mask).argmax(1)]

    def predict(self, features: Tensor, grid: tuple[int, ...] | None) -> Tensor:
        """Predictions from pooled states, and the grid of the tokens."""
        outputs: Tensor = self.linear(features)
        if self.target.kind == "dense":
            assert grid is not None
            outputs = self._join_patches(outputs, grid)
        return outputs * self.std + self.mean

    def _join_patches(self, patches: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Lay patches ``[n, tokens, numbers]`` side by side, and cut off the padding."""
        n, channels = len(patches), self.target.outputs
        dims = len(grid)
        axes = [0, 1 + dims]
        for dim in range(dims):
            axes += [1 + dim, 2 + dims + dim]
        sizes = [tokens * side for tokens, side in zip(grid, self.patch, strict=True)]
        on_grid = patches.reshape(n, *grid, channels, *self.patch)
        joined = on_grid.permute(axes).reshape(n, channels, *sizes)
        for dim, size in enumerate(self.target.shape):
            joined = joined.narrow(2 + dim, 0, size)
        return joined

    def loss(self, predicted: Tensor, y: Tensor) -> Tensor:
        """Loss of each example, ``[n]``; a squared error is in standard deviations of the training targets."""
        if self.target.kind == "class":
            return cross_entropy(predicted, y, reduction="none")
        if self.target.kind == "multilabel":
            labels = y.to(predicted)
            return binary_cross_entropy_with_logits(predicted, labels, reduction="none").mean(1)
        if self.target.kind == "dense":
            return relative_l2(predicted, y)
        return ((predicted - y) / self.std).square().mean(1)


def relative_l2(predicted: Tensor, y: Tensor) -> Tensor:
    """Norm of the error over the norm of the target, ``[n]`` (Li et al., 2020, https://arxiv.org/abs/2010.08895)."""
    return _norm(predicted - y) / _norm(y).clamp(min=1e-12)


def _norm(values: Tensor) -> Tensor:
    return (values**2).flatten(1).sum(1).sqrt()


class RelativeL2(MeanMetric):
    """Mean of `relative_l2`."""

    def update(self, predicted: Tensor, y: Tensor) -> None:  # type: ignore[override]
        """Add a batch."""
        super().update(relative_l2(predicted, y))


def build_metric(target: TargetSpec) -> Metric:
    """A new metric of the kind that ``METRIC_NAMES`` names, to update with predictions and targets."""
    import torchmetrics  # all of it takes seconds to import, and this is where a stage is built

    if target.kind == "class":
        return torchmetrics.classification.MulticlassAccuracy(target.outputs, average="micro")
    if target.kind == "multilabel":
        return torchmetrics.classification.MultilabelAveragePrecision(target.outputs)
    if target.kind == "regression":
        return torchmetrics.MeanSquaredError(squared=False)
    return RelativeL2()
