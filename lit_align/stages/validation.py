"""Means of a stage's metrics over the validation set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torchmetrics.aggregation import MeanMetric
from torchmetrics.collections import MetricCollection
from torchmetrics.metric import Metric

from lit_align.stages.exact_step import MetricSums


class ValidationMetrics(MetricCollection):
    """Mean of each metric over the validation set, all ranks together; logged with the prefix ``eval_``.

    Args:
        names: of the metrics.
    """

    def __init__(self, names: Iterable[str]) -> None:
        # NaN stays NaN: a mean without it would look sound. ("disable", meant for that, loses the weights.)
        means: dict[str, Metric | MetricCollection] = {
            name: MeanMetric(nan_strategy=float("nan")) for name in names
        }
        super().__init__(means, prefix="eval_")

    def add_values(self, values: Mapping[str, torch.Tensor], device: torch.device) -> None:
        """Add a metric's values, ``[n]``, by its name."""
        for name, numbers in values.items():
            if not len(numbers):
                continue
            count = torch.tensor(float(len(numbers)), device=device)
            self[name].update(numbers.mean().to(device), weight=count)

    def add_sums(self, sums: MetricSums, loss: torch.Tensor, count: int) -> None:
        """Add the sums of one micro-batch, its loss as a mean over ``count`` labels."""
        total, _ = sums.get("loss", (loss, 0.0))
        for name, (value, n) in {**sums, "loss": (total, float(count))}.items():
            if n:  # update() overwrites the weight where the value is NaN
                weight = n.clone() if isinstance(n, torch.Tensor) else loss.new_tensor(n)
                self[name].update(value / n, weight=weight)
