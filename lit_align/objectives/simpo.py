"""Simple Preference Optimization (Meng et al., 2024, https://arxiv.org/abs/2405.14734)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_at_least, check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class SimPO(PairwiseObjective):
    r"""Raise the chosen response over the rejected one, per token and by a margin; no reference model.

    .. math:: -\log\sigma\Big(\tfrac{\beta}{|y_w|}\log\pi_\theta(y_w) - \tfrac{\beta}{|y_l|}\log\pi_\theta(y_l)
        - \gamma\Big) \quad \text{(eq. 6)}

    Args:
        beta: scale of the reward; the paper uses 2.0 to 10.
        gamma: target margin, in the reward's units; the paper uses 0.3 to 1.6.

    Raises:
        ConfigError: if beta is not positive or gamma is negative.

    Example:
        Rewards of -2 and -3.5, and a margin of 1.5: the loss is log 2.

        >>> SimPO(beta=2.0, gamma=1.5)(Logps.from_lists([-10.0], length=[10]), Logps.from_lists([-7.0], length=[4]))
        tensor([0.6931])
    """

    needs_reference: ClassVar[bool] = False
    margin_only: ClassVar[bool] = True

    beta: float = 2.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "the paper uses 2.0 to 10")
        check_at_least("gamma", self.gamma, 0, "the paper uses 0.3 to 1.6")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * logps.policy / logps.length  # eq. 4

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return -logsigmoid(
            self.implicit_reward(chosen) - self.implicit_reward(rejected) - self.gamma
        )


@hookimpl
def register_objectives(register: Register) -> None:
    register(SimPO)
