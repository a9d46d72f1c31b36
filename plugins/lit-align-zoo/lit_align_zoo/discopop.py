"""Discovered Preference Optimization (Lu et al., 2024, https://arxiv.org/abs/2406.08414)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class DiscoPOP(PairwiseObjective):
    r"""The loss that a language model found: logistic for pairs in the wrong order, exponential for those in the right.

    .. math:: -\big(1 - s\big)\log\sigma(x) + s\,e^{-x}, \quad s = \sigma(x / \tau), \quad x = r_w - r_l
        \quad \text{(eq. 5)}

    It is not convex: as set, it rises with the margin from -2.37 to 1.44 nats. At the start of training, with x = 0, it
    pulls the wrong way, and holds a pair in the shallow minimum at -2.37 until others pull it out.

    Args:
        beta: pull towards the reference; the paper uses 0.05.
        tau: width of the passage between the two, up to 1; the paper uses 0.05.

    Raises:
        ValueError: if beta is not positive, or tau is not over 0 and up to 1.

    Example:
        At margins of -1, 0 and 1: the logistic loss, the mean of log 2 and 1, and 1/e.

        >>> DiscoPOP(beta=0.05)(Logps.from_lists([-30.0, -10.0, -10.0]), Logps.from_lists([-10.0, -10.0, -30.0]))
        tensor([1.3133, 0.8466, 0.3679])
    """

    symmetric: ClassVar[bool] = True

    beta: float = 0.05
    tau: float = 0.05

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; the paper uses 0.05")
        if not 0 < self.tau <= 1:
            raise ValueError(
                f"tau must be over 0 and up to 1, where the exponential is held, got {self.tau}; the paper uses 0.05"
            )

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        margin = self.reward(chosen) - self.reward(rejected)
        logistic = -logsigmoid(margin) * torch.sigmoid(-margin / self.tau)
        # s e^-x as one exponential: below 0 its exponent is under (1 / tau - 1) x, and cannot overflow
        return logistic + (logsigmoid(margin / self.tau) - margin).exp()


@hookimpl
def register_objectives(register: Register) -> None:
    register(DiscoPOP)
