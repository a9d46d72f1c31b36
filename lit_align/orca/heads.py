"""From hidden states to predictions, with the loss and the metric that go with each kind of target."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torchmetrics import MeanMetric, MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy, MultilabelAveragePrecision

from lit_align.errors import ConfigError
from lit_align.orca.embedders import Embedder
from lit_align.orca.modalities import TargetSpec
from lit_align.orca.types import Embedded

METRICS = {
    "class": "accuracy",
    "multilabel": "average_precision",
    "regression": "rmse",
    "dense": "relative_l2",
}


class Head(nn.Module):
    """A linear layer over the pooled tokens or, for a dense target, over each, for the places that it covers.

    Numbers come in the units of the targets, from their mean.

    Args:
        target: what is predicted; a dense one is not pooled.
        embedder: where the tokens come from.
        width: numbers in a token.
        pool: mean token, or the last one.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        target: TargetSpec,
        embedder: Embedder,
        width: int,
        pool: Literal["mean", "last"] = "mean",
    ) -> None:
        super().__init__()
        self.target, self.pool, self.metric = target, pool, METRICS[target.kind]
        self.patch = (embedder.patch or ()) if target.kind == "dense" else ()
        if target.kind == "dense" and not self.patch:
            name = type(embedder).__name__
            raise ConfigError(
                f"a dense target needs tokens that tile the input, {name} makes others; choose Patches"
            )
        self.linear = nn.Linear(width, target.outputs * prod(self.patch))
        scale = (-1, *[1] * len(self.patch))
        for name, values in {"mean": target.mean or (0.0,), "std": target.std or (1.0,)}.items():
            self.register_buffer(name, torch.tensor(values).view(scale), persistent=False)

    def forward(self, hidden: Tensor, embedded: Embedded) -> Tensor:
        """Logits ``[n, classes]``, or numbers ``[n, outputs]`` or ``[n, channels, ...]``, of the body's states."""
        return self.predict(self.read(hidden, embedded), embedded.grid)

    def read(self, hidden: Tensor, embedded: Embedded) -> Tensor:
        """What the linear layer sees: ``[n, d_model]``, or all tokens for a dense target."""
        if self.target.kind == "dense":
            return hidden
        if self.pool == "mean":
            return embedded._replace(tokens=hidden).pooled()
        row, column = (torch.arange(size, device=hidden.device) for size in hidden.shape[:2])
        return hidden[row, (column * embedded.mask).argmax(1)]

    def predict(self, seen: Tensor, grid: tuple[int, ...] | None) -> Tensor:
        """Predictions from what was read."""
        raw: Tensor = self.linear(seen)
        if self.target.kind == "dense":
            raw = self._tiled(raw, cast("tuple[int, ...]", grid))
        return raw * self.std + self.mean

    def _tiled(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Lay the patches side by side, and cut off what was padded."""
        n, dims, outputs = len(x), len(grid), self.target.outputs
        sides = (axis for dim in range(dims) for axis in (1 + dim, 2 + dims + dim))
        x = x.reshape(n, *grid, outputs, *self.patch).permute(0, 1 + dims, *sides)
        x = x.reshape(
            n, outputs, *(count * step for count, step in zip(grid, self.patch, strict=True))
        )
        for dim, size in enumerate(self.target.shape):
            x = x.narrow(2 + dim, 0, size)
        return x

    def loss(self, predicted: Tensor, y: Tensor) -> Tensor:
        """What to make smaller, ``[n]``; a squared error counts in deviations of the training targets."""
        kind = self.target.kind
        if kind == "class":
            return cross_entropy(predicted, y, reduction="none")
        if kind == "multilabel":
            return binary_cross_entropy_with_logits(
                predicted, y.to(predicted), reduction="none"
            ).mean(1)
        return (
            relative_l2(predicted, y)
            if kind == "dense"
            else ((predicted - y) / self.std).square().mean(1)
        )


def relative_l2(predicted: Tensor, y: Tensor) -> Tensor:
    """Norm of the error over the norm of the target, ``[n]`` (Li et al., 2020, https://arxiv.org/abs/2010.08895)."""
    error, size = ((values**2).flatten(1).sum(1).sqrt() for values in (predicted - y, y))
    return error / size.clamp(min=1e-12)


class RelativeL2(MeanMetric):
    """The mean of ``relative_l2``."""

    def update(self, predicted: Tensor, y: Tensor) -> None:  # type: ignore[override]
        """Take a batch."""
        super().update(relative_l2(predicted, y))


def measure(target: TargetSpec) -> Metric:
    """A fresh metric, the one that ``METRICS`` names, to update with predictions and targets."""
    n = target.outputs
    made: dict[str, Callable[[], Metric]] = {
        "class": lambda: MulticlassAccuracy(n, average="micro"),
        "multilabel": lambda: MultilabelAveragePrecision(n),
        "regression": lambda: MeanSquaredError(squared=False),
        "dense": RelativeL2,
    }
    return made[target.kind]()
