"""Entropy-Adaptive Fine-Tuning (Diao et al., 2026, https://arxiv.org/abs/2601.02151)."""

from dataclasses import dataclass
from math import log
from typing import ClassVar

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import SupervisedObjective

FULL_ENTROPY = log(20)
"""Nats at which a token counts in full: the largest entropy of the 20 most probable tokens, which peers measure."""


@dataclass(frozen=True)
class EAFT(SupervisedObjective):
    r"""Cross-entropy that weights tokens by how unsure the policy is, so that what contradicts it does little damage.

    .. math:: -\min\!\Big(\tfrac{H_t}{\log 20}, 1\Big)^{\alpha} \log\pi_\theta(y_t \mid x, y_{<t})

    A token that the policy finds improbable while it is sure of another has a large gradient, and a small weight.
    H is the entropy of the whole distribution without gradient; peers take that of the 20 most probable tokens, which
    is at most log 20, as an approximation of it.

    Args:
        alpha: α: the power of the weight; 1 is usual, 0 is cross-entropy.

    Raises:
        ConfigError: if alpha is not positive.

    Example:
        At half of log 20 nats of entropy a token of 2 nats costs 1, and beyond log 20 nats it costs 2.

        >>> import torch
        >>> EAFT()(torch.tensor([-2.0, -2.0]), entropy=torch.tensor([0.5, 1.5]) * FULL_ENTROPY)
        tensor([1., 2.])
    """

    alpha: float = 1.0
    needs_entropy: ClassVar[bool] = True
    has_stop_gradient_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha, "1 is usual")

    def __call__(self, logps: Tensor, entropy: Tensor) -> Tensor:  # type: ignore[override]
        return -(entropy / FULL_ENTROPY).clamp(0, 1).pow(self.alpha) * logps


@hookimpl
def register_objectives(register: Register) -> None:
    register(EAFT)
