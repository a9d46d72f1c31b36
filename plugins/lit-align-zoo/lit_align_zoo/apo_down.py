"""Anchored Preference Optimization, down (D'Oosterlinck et al., 2024, https://arxiv.org/abs/2408.06266)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class APODown(PairwiseObjective):
    r"""Lower both responses, and the rejected one further.

    For data whose chosen responses are worse than the model's own.

    .. math:: \sigma(r_w) + 1 - \sigma(r_w - r_l), \quad r = \beta\log\tfrac{\pi_\theta}{\pi_\text{ref}}
        \quad \text{(eq. 8)}

    Args:
        beta: pull towards the reference.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        Rewards of 0 and -1: 1/2 for the chosen response, and 1 - σ(1) = 0.2689 for the margin.

        >>> APODown(beta=0.1)(Logps.from_lists([-10.0], [-10.0]), Logps.from_lists([-30.0], [-20.0]))
        tensor([0.7689])
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "0.1 is usual")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        chosen_reward = self.implicit_reward(chosen)
        margin = chosen_reward - self.implicit_reward(rejected)
        return torch.sigmoid(chosen_reward) + (1 - torch.sigmoid(margin))


@hookimpl
def register_objectives(register: Register) -> None:
    register(APODown)
