"""Kahneman-Tversky Optimization (Ethayarajh et al., 2024, https://arxiv.org/abs/2402.01306)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, UnpairedObjective


@dataclass(frozen=True)
class KTO(UnpairedObjective):
    r"""Move the reward of desirable responses above the KL baseline, and that of undesirable ones below.

    .. math:: \lambda_D\big(1 - \sigma(r - \beta z)\big)\ \text{if desirable},\quad
        \lambda_U\big(1 - \sigma(\beta z - r)\big)\ \text{if not},\quad r = \beta\log\tfrac{\pi_\theta}{\pi_\text{ref}}
        \quad \text{(eq. 8)}

    z, the divergence of the policy from its reference, is estimated by the stage on responses to other prompts; it has
    no gradient.

    Args:
        beta: pull towards the reference.
        desirable_weight: λ_D; the paper keeps λ_D n_D / (λ_U n_U), where n counts the labels, between 1 and 3/2.
        undesirable_weight: λ_U.

    Raises:
        ConfigError: if one of them is not positive.

    Example:
        Rewards of 1 and 0 against a baseline of 0: 1 - σ(1), and half of 1 - σ(0).

        >>> desirable, zero = torch.tensor([True, False]), torch.zeros(())
        >>> KTO(beta=0.1, undesirable_weight=0.5)(Logps.from_lists([-10.0, -9.0], [-20.0, -9.0]), desirable, zero)
        tensor([0.2689, 0.2500])
    """

    baseline: ClassVar[Literal["none", "kl", "reward"]] = "kl"

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_positive(name, value, "leave it out for the paper's")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, responses: Logps, desirable: Tensor, baseline: Tensor) -> Tensor:
        gain = self.implicit_reward(responses) - self.beta * baseline
        return torch.where(
            desirable,
            self.desirable_weight * torch.sigmoid(-gain),
            self.undesirable_weight * torch.sigmoid(gain),
        )


@hookimpl
def register_objectives(register: Register) -> None:
    register(KTO)
