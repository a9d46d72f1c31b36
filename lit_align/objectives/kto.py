"""Kahneman-Tversky Optimization (Ethayarajh et al., 2024, https://arxiv.org/abs/2402.01306)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, UnpairedObjective


@dataclass(frozen=True)
class KTO(UnpairedObjective):
    r"""Move desirable responses above what the policy gains on any text, and undesirable ones below.

    .. math:: \lambda_D\big(1 - \sigma(r - \beta z)\big)\ \text{if desirable},\quad
        \lambda_U\big(1 - \sigma(\beta z - r)\big)\ \text{if not},\quad r = \beta\log\tfrac{\pi}{\rho}
        \quad \text{(eq. 8)}

    z, the divergence of the policy from its reference, is estimated by the stage on responses to other prompts, and
    carries no gradient.

    Args:
        beta: pull towards the reference.
        desirable_weight: λ_D; the paper keeps λ_D n_D / (λ_U n_U), where n counts the thumbs, between 1 and 3/2.
        undesirable_weight: λ_U.

    Raises:
        ValueError: if one of them is not positive.

    Example:
        Rewards of 1 and 0 against a baseline of 0: 1 - σ(1), and half of 1 - σ(0).

        >>> thumbs, zero = torch.tensor([True, False]), torch.zeros(())
        >>> KTO(beta=0.1, undesirable_weight=0.5)(Logps.from_lists([-10.0, -9.0], [-20.0, -9.0]), thumbs, zero)
        tensor([0.2689, 0.2500])
    """

    baseline: ClassVar[Literal["none", "kl", "reward"]] = "kl"

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(
                    f"{name} must be positive, got {value}; leave it out for the paper's"
                )

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference)

    def __call__(self, responses: Logps, desirable: Tensor, baseline: Tensor) -> Tensor:
        gain = self.reward(responses) - self.beta * baseline
        up, down = (
            self.desirable_weight * torch.sigmoid(-gain),
            self.undesirable_weight * torch.sigmoid(gain),
        )
        return torch.where(desirable, up, down)


@hookimpl
def register_objectives(register: Register) -> None:
    register(KTO)
