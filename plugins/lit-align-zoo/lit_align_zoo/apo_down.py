"""Anchored Preference Optimization, down (D'Oosterlinck et al., 2024, https://arxiv.org/abs/2408.06266)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class APODown(PairwiseObjective):
    r"""Lower both responses, and the rejected one further.

    For data whose chosen responses are worse than what the model would say.

    .. math:: \sigma(r_w) + 1 - \sigma(r_w - r_l), \quad r = \beta\log\tfrac{\pi}{\rho} \quad \text{(eq. 8)}

    Args:
        beta: pull towards the reference.

    Raises:
        ValueError: if beta is not positive.

    Example:
        Rewards of 0 and -1: 1/2 for where the chosen response stands, and 1 - σ(1) = 0.2689 for the margin.

        >>> APODown(beta=0.1)(Logps.from_lists([-10.0], [-10.0]), Logps.from_lists([-30.0], [-20.0]))
        tensor([0.7689])
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; 0.1 is usual")

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        up, down = self.reward(chosen), self.reward(rejected)
        return torch.sigmoid(up) + (1 - torch.sigmoid(up - down))


@hookimpl
def register_objectives(register: Register) -> None:
    register(APODown)
