"""Anchored Supervised Fine-Tuning (Zhu et al., 2025, https://arxiv.org/abs/2509.23753)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_fraction, check_positive
from lit_align.objectives import DivergenceFrom, SupervisedObjective


@dataclass(frozen=True)
class ASFT(SupervisedObjective):
    r"""`DFT`, which drifts, with an anchor: the divergence of the whole distribution from the reference's.

    .. math:: -\operatorname{sg}\big(\pi_\theta(y_t)\big)\log\pi_\theta(y_t)
        + \lambda\,D_\beta\big(\pi_{ref}(\cdot) \,\|\, \pi_\theta(\cdot)\big)

    Args:
        weight: λ.
        beta: β of the generalised Jensen-Shannon divergence: 0, the KL divergence from the reference to the policy, to
            1, the other direction.

    Raises:
        ConfigError: if weight is not positive, or beta not between 0 and 1.

    Example:
        log 2 / 2 of a token with probability 1/2, and a tenth of 0.2 nats.

        >>> import torch
        >>> ASFT(weight=0.1)(torch.tensor([0.5]).log(), divergence=torch.tensor([0.2]))
        tensor([0.3666])
    """

    weight: float = 0.1
    beta: float = 0.0
    needs_reference = True
    has_stop_gradient_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive("weight", self.weight, "DFT is ASFT without an anchor")
        check_fraction("beta", self.beta)

    @property
    def divergence_from(self) -> DivergenceFrom:
        return DivergenceFrom("reference", self.beta)

    def __call__(self, logps: Tensor, divergence: Tensor) -> Tensor:  # type: ignore[override]
        return -logps.detach().exp() * logps + self.weight * divergence


@hookimpl
def register_objectives(register: Register) -> None:
    register(ASFT)
