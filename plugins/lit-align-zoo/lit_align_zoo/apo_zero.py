"""Anchored Preference Optimization (D'Oosterlinck et al., 2024, https://arxiv.org/abs/2408.06266)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class APOZero(PairwiseObjective):
    r"""Raise the chosen response and lower the rejected one, each against the reference alone.

    For data whose chosen responses are better than the model's own.

    .. math:: 1 - \sigma(r_w) + \sigma(r_l), \quad r = \beta\log\tfrac{\pi_\theta}{\pi_\text{ref}} \quad \text{(eq. 7)}

    Args:
        beta: pull towards the reference.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        Rewards of 1 and -1: twice 1 - σ(1) = 0.2689.

        >>> APOZero(beta=0.1)(Logps.from_lists([-10.0], [-20.0]), Logps.from_lists([-30.0], [-20.0]))
        tensor([0.5379])
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "0.1 is usual")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        chosen_loss = torch.sigmoid(-self.implicit_reward(chosen))
        return chosen_loss + torch.sigmoid(self.implicit_reward(rejected))


@hookimpl
def register_objectives(register: Register) -> None:
    register(APOZero)
