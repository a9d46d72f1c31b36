"""Binary Classifier Optimization (Jung et al., 2024, https://arxiv.org/abs/2404.04656).

Left out: the weights for data whose two kinds of response come from different prompts (section 4.3).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, UnpairedObjective


@dataclass(frozen=True)
class BCO(UnpairedObjective):
    r"""Classify desirable against undesirable responses by the implicit reward, shifted to lie between the two.

    .. math:: -\log\sigma(r - \delta)\ \text{if desirable},\quad -\log\sigma(\delta - r)\ \text{if not},\quad
        r = \beta\log\tfrac{\pi_\theta}{\pi_\text{ref}},\quad \delta = \tfrac12\big(\overline{r_D} + \overline{r_U}\big)

    The stage estimates δ as a running mean; it has no gradient.

    Args:
        beta: pull towards the reference.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        Rewards of 1 and 0 with δ = 0: log(1 + 1/e) and log 2.

        >>> desirable, zero = torch.tensor([True, False]), torch.zeros(())
        >>> BCO(beta=0.1)(Logps.from_lists([-10.0, -9.0], [-20.0, -9.0]), desirable, zero)
        tensor([0.3133, 0.6931])
    """

    baseline: ClassVar[Literal["none", "kl", "reward"]] = "reward"

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "0.1 is usual")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, responses: Logps, desirable: Tensor, baseline: Tensor) -> Tensor:
        shifted = self.implicit_reward(responses) - baseline
        return -logsigmoid(torch.where(desirable, shifted, -shifted))


@hookimpl
def register_objectives(register: Register) -> None:
    register(BCO)
