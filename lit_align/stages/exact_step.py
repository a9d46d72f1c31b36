"""Parts of one exact optimizer step: sums over micro-batches and ranks, divided by the step's global count.

The mean over a step is a sum over all its micro-batches and ranks divided by one count, so neither the token budget nor
the number of processes changes the loss or its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy
from torch import Tensor

MetricSums = dict[str, tuple[Tensor, Tensor]]
"""Metrics of one micro-batch: name → (sum, count), so that micro-batches and ranks add up."""

StepSums = dict[str, tuple[float, float]]
"""Metrics of a whole step: name → (sum, count) over all its micro-batches and ranks."""


def without_backward_sync(strategy: Strategy) -> AbstractContextManager[None]:
    """Leaves gradients to each rank: ranks have different numbers of micro-batches, and their sums are added later."""
    block_sync = getattr(strategy, "block_backward_sync", nullcontext)
    return cast(AbstractContextManager[None], block_sync())


def add_sums(totals: MetricSums, sums: MetricSums) -> None:
    """Add the metrics of one micro-batch to the step's totals, in float32 and without gradient."""
    for name, (total, count) in sums.items():
        zero = torch.zeros((), device=total.device)
        step_total, step_count = totals.get(name, (zero, zero))
        step_total = step_total + total.detach().float()
        totals[name] = (step_total, step_count + count)


def reduce_sums(
    totals: MetricSums, names: Sequence[str], strategy: Strategy, device: torch.device
) -> StepSums:
    """Sums and counts over all ranks.

    Args:
        totals: of this rank.
        names: metrics in the order in which all ranks send them; those that a rank lacks count as 0.
        strategy: reduces over ranks.
        device: where zeros for lacking metrics are made.
    """
    zero = torch.zeros((), device=device)
    values: list[Tensor] = []
    for name in names:
        values += totals.get(name, (zero, zero))
    reduced = strategy.reduce(torch.stack(values), reduce_op="sum").tolist()
    pairs = zip(reduced[::2], reduced[1::2], strict=True)
    return dict(zip(names, pairs, strict=True))


def sum_gradients_over_ranks(parameters: Sequence[torch.nn.Parameter], trainer: Trainer) -> None:
    """Replace each gradient by its sum over ranks, if there are several; a rank without data adds zeros."""
    if trainer.world_size == 1:
        return
    gradients = []
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            gradient = torch.zeros_like(parameter)
        gradients.append(gradient.flatten())
    reduced = trainer.strategy.reduce(torch.cat(gradients), reduce_op="sum")
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        gradient = reduced[start:end].view_as(parameter)
        parameter.grad = gradient.clone()
        start = end
