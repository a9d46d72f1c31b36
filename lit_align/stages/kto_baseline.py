"""The running baseline that losses over single responses are measured against."""

from __future__ import annotations

import torch
from torch import Tensor

Counted = dict[str, tuple[float, float]]
"""For each kind of response: sum and count over one step, all ranks together."""


class RunningBaseline:
    """Mean over the newest responses, by whole steps; 0 while there are none, as it is in truth before training.

    It is known before a step begins, so a step may be cut into micro-batches. Those of earlier steps were measured
    under earlier policies: the estimate lags behind by up to ``size`` responses.

    Args:
        size: how many responses, of each kind, the mean is to be over; at least those of the newest step.

    Example:
        >>> running = RunningBaseline(size=3)
        >>> for total in (6.0, 2.0, 4.0):
        ...     running.add({"kl": (total, 2.0)})
        >>> running()  # of the newest two steps: (2 + 4) / 4
        tensor(1.5000)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.steps: list[Counted] = []

    def add(self, step: Counted) -> None:
        """Take in one step, and forget those that are no longer needed."""
        self.steps.append(step)
        while len(self.steps) > 1 and all(
            sum(one[kind][1] for one in self.steps[1:]) >= self.size for kind in step
        ):
            del self.steps[0]

    def __call__(self) -> Tensor:
        """The mean of the means of each kind, ``[]``; a divergence is not below 0."""
        kinds = list(self.steps[0]) if self.steps else []
        totals = {kind: [sum(one[kind][k] for one in self.steps) for k in (0, 1)] for kind in kinds}
        mean = sum(total / n for total, n in totals.values() if n) / max(len(kinds), 1)
        return torch.tensor(max(mean, 0.0) if "kl" in kinds else mean)
