"""Discovered Preference Optimization (Lu et al., 2024, https://arxiv.org/abs/2406.08414)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.errors import ConfigError
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class DiscoPOP(PairwiseObjective):
    r"""Loss found by LLM-driven search: logistic for pairs in the wrong order, exponential in the right one.

    .. math:: -\big(1 - s\big)\log\sigma(x) + s\,e^{-x}, \quad s = \sigma(x / \tau), \quad x = r_w - r_l
        \quad \text{(eq. 5)}

    It is not convex: at the default settings it rises with the margin from -2.37 to 1.44. At the start of training, at
    x = 0, its gradient points the wrong way, and a pair stays in the shallow minimum at -2.37 until others move it.

    Args:
        beta: pull towards the reference; the paper uses 0.05.
        tau: temperature of the transition between the two, over 0 and up to 1; the paper uses 0.05.

    Raises:
        ConfigError: if beta is not positive, or tau is not over 0 and up to 1.

    Example:
        At margins of -1, 0 and 1: the logistic loss, the mean of log 2 and 1, and 1/e.

        >>> DiscoPOP(beta=0.05)(Logps.from_lists([-30.0, -10.0, -10.0]), Logps.from_lists([-10.0, -10.0, -30.0]))
        tensor([1.3133, 0.8466, 0.3679])
    """

    margin_only: ClassVar[bool] = True

    beta: float = 0.05
    tau: float = 0.05

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "the paper uses 0.05")
        if not 0 < self.tau <= 1:
            raise ConfigError(
                f"tau must be over 0 and up to 1 (else e^-x is unbounded), got {self.tau}; the paper uses 0.05"
            )

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        margin = self.implicit_reward(chosen) - self.implicit_reward(rejected)
        logistic = -logsigmoid(margin) * torch.sigmoid(-margin / self.tau)
        # s e^-x as one exponential: below 0 its exponent is under (1 / tau - 1) x, and cannot overflow
        return logistic + (logsigmoid(margin / self.tau) - margin).exp()


@hookimpl
def register_objectives(register: Register) -> None:
    register(DiscoPOP)
