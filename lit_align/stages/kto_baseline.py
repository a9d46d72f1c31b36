"""Running baseline of losses over single responses (KTO, BCO)."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_align.stages.exact_step import StepSums


class RunningBaseline:
    """Mean over the newest responses, by whole steps; 0 before the first step, which is exact before training.

    It is fixed before a step begins, so that a step may be cut into micro-batches. Rewards of earlier steps were
    measured under earlier policies: the estimate lags behind by up to ``size`` responses.

    Args:
        size: responses of each kind to average over; at least those of the newest step.

    Example:
        >>> running = RunningBaseline(size=3)
        >>> for total in (6.0, 2.0, 4.0):
        ...     running.add({"kl": (total, 2.0)})
        >>> running()  # of the newest two steps: (2 + 4) / 4
        tensor(1.5000)
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.steps: list[StepSums] = []

    def add(self, step: StepSums) -> None:
        """Add the sums and counts of one step by kind of response, and drop steps that are no longer needed."""
        self.steps.append(step)
        while len(self.steps) > 1 and self._is_enough(self.steps[1:]):
            del self.steps[0]

    def _is_enough(self, steps: list[StepSums]) -> bool:
        """Whether ``steps`` have ``size`` responses of each kind in the newest step."""
        for kind in self.steps[-1]:
            count = sum(step[kind][1] for step in steps)
            if count < self.size:
                return False
        return True

    def __call__(self) -> Tensor:
        """The mean of the means of each kind, ``[]``; a KL divergence is not below 0."""
        kinds = list(self.steps[0]) if self.steps else []
        sum_of_means = 0.0
        for kind in kinds:
            total = count = 0.0
            for step in self.steps:
                step_total, step_count = step[kind]
                total += step_total
                count += step_count
            if count:
                sum_of_means += total / count
        mean = sum_of_means / max(len(kinds), 1)
        return torch.tensor(max(mean, 0.0) if "kl" in kinds else mean)
