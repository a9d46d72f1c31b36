"""DPO under other divergences (Wang et al., 2023, https://arxiv.org/abs/2309.16240)."""

from dataclasses import dataclass
from math import log
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.errors import ConfigError
from lit_align.objectives import Logps, PairwiseObjective

STEEPEST = 40.0
"""Exponent from which an exponential goes on as its tangent: single precision ends at e^88, and the squared norm of a
gradient that is to be clipped must fit as well. At e^40 a pair outshouts all others as it is."""


@dataclass(frozen=True)
class FDPO(PairwiseObjective):
    r"""DPO with another f-divergence from the reference in place of reverse KL.

    .. math:: -\log\sigma\Big(\beta f'\big(\tfrac{\pi_\theta(y_w)}{\pi_\text{ref}(y_w)}\big)
        - \beta f'\big(\tfrac{\pi_\theta(y_l)}{\pi_\text{ref}(y_l)}\big)\Big)

    with f'(t) up to a constant log t (reverse KL), -1 / t (forward KL), log 2t / (1 + t) (Jensen-Shannon) or
    (1 - t^-α) / α, which lies between reverse KL, α near 0, and forward KL, α near 1.

    Args:
        beta: pull towards the reference.
        divergence: "reverse_kl", which is DPO, "forward_kl", "js" or "alpha".
        alpha: α, over 0 and under 1, of the divergence "alpha"; TRL's coefficient is 1 - α.

    Raises:
        ConfigError: if beta is not positive, divergence is unknown, or alpha is not over 0 and under 1.

    Example:
        The policy triples one probability and divides the other by 3: log 6/4 - log (2/3) / (4/3) = log 3,
        and a loss of log(1 + 1/3).

        >>> FDPO(beta=1.0)(Logps.from_lists([-10.0], [-11.0986]), Logps.from_lists([-11.0986], [-10.0]))
        tensor([0.2877])
    """

    margin_only: ClassVar[bool] = True

    beta: float = 0.1
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "js"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "0.1 is usual")
        if self.divergence not in ("reverse_kl", "forward_kl", "js", "alpha"):
            raise ConfigError(
                f'divergence {self.divergence!r} is none of "reverse_kl", "forward_kl", "js" and "alpha"'
            )
        if not 0 < self.alpha < 1:
            raise ConfigError(
                f'alpha must be over 0 and under 1, got {self.alpha}; its ends are "reverse_kl", "forward_kl"'
            )

    def implicit_reward(self, logps: Logps) -> Tensor:
        ratio = logps.policy - logps.reference
        if self.divergence == "reverse_kl":
            return self.beta * ratio
        if self.divergence == "js":
            return self.beta * (log(2) + logsigmoid(ratio))
        power = 1.0 if self.divergence == "forward_kl" else self.alpha
        return -self.beta * _expm1(-power * ratio) / power

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return -logsigmoid(self.implicit_reward(chosen) - self.implicit_reward(rejected))


def _expm1(exponent: Tensor) -> Tensor:
    """e^x - 1, linear beyond ``STEEPEST``: finite, and the gradient does not vanish there."""
    clamped = exponent.clamp(max=STEEPEST)
    return clamped.expm1() + clamped.exp() * (exponent - clamped)


@hookimpl
def register_objectives(register: Register) -> None:
    register(FDPO)
