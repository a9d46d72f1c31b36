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
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from torch import Tensor

from lit_align.data.transfer import numbers_to_device
from lit_align.errors import ConfigError

MetricSums = dict[str, tuple[Tensor, Tensor | float]]
"""Metrics of one micro-batch: name → (sum, count), so that micro-batches and ranks add up.

A count that the host knows is a float: as a tensor it would have to be sent to a GPU, and read back from there.
"""

StepSums = dict[str, tuple[float, float]]
"""Metrics of a whole step: name → (sum, count) over all its micro-batches and ranks."""


def require_whole_copies(trainer: Trainer) -> None:
    """Refuse a strategy by which a process holds a share of the weights: sums over ranks would be wrong silently.

    Args:
        trainer: of the run.

    Raises:
        ConfigError: naming the strategy.
    """
    strategy = trainer.strategy
    is_whole = isinstance(strategy, SingleDeviceStrategy | DDPStrategy)
    if not is_whole or isinstance(strategy, DeepSpeedStrategy):
        raise ConfigError(
            f"trainer.strategy is {type(strategy).__name__}, by which no process holds all adapters; leave it out for "
            "one GPU, or set ddp, or sharded_base for a base that is larger than one card"
        )


def without_backward_sync(strategy: Strategy) -> AbstractContextManager[None]:
    """Leaves gradients to each rank: ranks have different numbers of micro-batches, and their sums are added later."""
    block_sync = getattr(strategy, "block_backward_sync", nullcontext)
    return cast(AbstractContextManager[None], block_sync())


class MetricTotals:
    """Sums and counts of a step's metrics over its micro-batches; on a GPU nothing of them is read before the end.

    Args:
        names: metrics in the order in which all ranks send them; those that a rank lacks count as 0.
        device: of the sums.

    Example:
        >>> totals = MetricTotals(["loss", "kl"], torch.device("cpu"))
        >>> for loss in (1.0, 2.0):
        ...     totals.add({"loss": (torch.tensor(loss), 3.0)})
        >>> totals.step_sums([3.0, 0.0, 0.0, 0.0])
        {'loss': (3.0, 6.0), 'kl': (0.0, 0.0)}
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        self.numbers = torch.zeros(2 * len(self.names), device=device)  # sums, then counts
        self.known_counts = dict.fromkeys(self.names, 0.0)

    def add(self, sums: MetricSums) -> None:
        """Add the metrics of one micro-batch, in float32 and without gradient."""
        zero = torch.zeros((), device=self.numbers.device)
        totals, counts = [], []
        for name in self.names:
            total, count = sums.get(name, (zero, 0.0))
            totals.append(total.detach().float())
            if isinstance(count, Tensor):
                counts.append(count.detach().float())
            else:
                counts.append(zero)
                self.known_counts[name] += count
        self.numbers = self.numbers + torch.stack(totals + counts)

    def reduced(self, strategy: Strategy, world_size: int) -> Tensor:
        """Sums and counts over all ranks, ``[2 * metrics]``, as `step_sums` takes them once the host has them."""
        if world_size > 1:
            known = [0.0] * len(self.names) + list(self.known_counts.values())
            self.numbers = self.numbers + numbers_to_device(known, self.numbers.device)
            self.known_counts = dict.fromkeys(self.names, 0.0)
            self.numbers = strategy.reduce(self.numbers, reduce_op="sum")
        return self.numbers

    def step_sums(self, numbers: Sequence[float]) -> StepSums:
        """The sum and the count of each metric.

        Args:
            numbers: what `reduced` returned.
        """
        sums: StepSums = {}
        for place, name in enumerate(self.names):
            count = numbers[len(self.names) + place] + self.known_counts[name]
            sums[name] = (numbers[place], count)
        return sums


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
