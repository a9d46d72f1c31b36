"""What an objective sees and what it must answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from lit_align.batches import Logps


class Objective(ABC):
    """A loss that a stage makes smaller: a frozen dataclass whose fields are its settings.

    Class attributes:
        takes: the label the data must carry: ``"pairs"``, ``"demonstrations"``.
        needs_reference: False lets the stage skip the reference model.
        couples_batch: True if the loss of one item depends on the others; it then cannot be split over micro-batches.
    """

    takes: ClassVar[str]
    needs_reference: ClassVar[bool] = True
    couples_batch: ClassVar[bool] = False


class PairwiseObjective(Objective):
    """A loss over comparisons: DPO and its family."""

    takes = "pairs"

    def reward(self, side: Logps) -> Tensor:
        """What the policy implicitly pays each response, ``[responses]``; logged, not trained on."""
        return side.policy - side.reference

    @abstractmethod
    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        """Loss of each pair, ``[pairs]``, unreduced: reduction and label noise are the stage's."""


class SupervisedObjective(Objective):
    """A loss over demonstrations: imitate what is there."""

    takes = "demonstrations"
    needs_reference = False

    @abstractmethod
    def __call__(self, logps: Tensor) -> Tensor:
        """Loss of each scored token, ``[n]``, from its log-probability, ``[n]``; unreduced."""
