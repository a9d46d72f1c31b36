"""Hinge loss on the margin (Zhao et al., 2023, https://arxiv.org/abs/2305.10425), as a plugin to copy."""

from dataclasses import dataclass

from torch import Tensor, relu

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class Hinge(PairwiseObjective):
    """Raise the chosen response over the rejected one, up to a margin of one.

    Args:
        beta: scale of the log-ratios.

    Example:
        >>> Hinge(beta=0.1)(Logps.from_lists([-10.0], [-12.0]), Logps.from_lists([-20.0], [-20.0]))  # 1 - 0.1 * 2
        tensor([0.8000])
    """

    beta: float = 0.1

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return relu(1 - (self.implicit_reward(chosen) - self.implicit_reward(rejected)))


@hookimpl
def register_objectives(register: Register) -> None:
    register(Hinge)
