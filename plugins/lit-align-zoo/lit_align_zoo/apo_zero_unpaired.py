"""Anchored Preference Optimization on binary labels (D'Oosterlinck et al., 2024, https://arxiv.org/abs/2408.06266)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, UnpairedObjective


@dataclass(frozen=True)
class APOZeroUnpaired(UnpairedObjective):
    r"""Raise desirable responses above the reference, and lower undesirable ones below it: APO-zero without pairs.

    .. math:: \lambda_D\big(1 - \sigma(r)\big)\ \text{if desirable},\quad \lambda_U\,\sigma(r)\ \text{if not},\quad
        r = \beta\log\tfrac{\pi_\theta}{\pi_\text{ref}} \quad \text{(the halves of eq. 7)}

    It is KTO with a baseline of 0, so that no mismatched responses are needed.

    Args:
        beta: pull towards the reference.
        desirable_weight: λ_D, for data with more labels of one kind.
        undesirable_weight: λ_U.

    Raises:
        ConfigError: if one of them is not positive.

    Example:
        Rewards of 1 and 0: 1 - σ(1), and half of σ(0).

        >>> responses = Logps.from_lists([-10.0, -9.0], [-20.0, -9.0])
        >>> loss = APOZeroUnpaired(beta=0.1, undesirable_weight=0.5)
        >>> loss(responses, torch.tensor([True, False]), torch.zeros(()))
        tensor([0.2689, 0.2500])
    """

    baseline: ClassVar[Literal["none", "kl", "reward"]] = "none"

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_positive(name, value, "leave it out for the usual one")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, responses: Logps, desirable: Tensor, baseline: Tensor) -> Tensor:
        reward = self.implicit_reward(responses)
        return torch.where(
            desirable,
            self.desirable_weight * torch.sigmoid(-reward),
            self.undesirable_weight * torch.sigmoid(reward),
        )


@hookimpl
def register_objectives(register: Register) -> None:
    register(APOZeroUnpaired)
