"""Contrastive Preference Optimization (Xu et al., 2024, https://arxiv.org/abs/2401.08417)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_at_least, check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class CPO(PairwiseObjective):
    r"""DPO without a reference model (a uniform one), plus cross-entropy on the chosen response.

    .. math:: -\log\sigma\big(\beta\log\pi_\theta(y_w) - \beta\log\pi_\theta(y_l)\big)
        - \tfrac{\lambda}{|y_w|}\log\pi_\theta(y_w) \quad \text{(eq. 3, with the cross-entropy that the paper adds)}

    The cross-entropy is averaged over the tokens of each response, so that long ones do not dominate the comparison.

    Args:
        beta: scale of the log-probabilities; the paper uses 0.1.
        weight: λ, of the cross-entropy; the paper uses 1. TRL calls it cpo_alpha.

    Raises:
        ConfigError: if beta is not positive or weight is negative.

    Example:
        A margin of 0.1 * 10 costs log(1 + 1/e) = 0.3133, and the cross-entropy is 10 nats over 10 tokens.

        >>> CPO(beta=0.1, weight=1.0)(Logps.from_lists([-10.0], length=[10]), Logps.from_lists([-20.0]))
        tensor([1.3133])
    """

    needs_reference: ClassVar[bool] = False

    beta: float = 0.1
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "the paper uses 0.1")
        check_at_least("weight", self.weight, 0, "0 leaves the cross-entropy out")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * logps.policy

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        margin = self.implicit_reward(chosen) - self.implicit_reward(rejected)
        return self.supervised_term(chosen) - logsigmoid(margin)

    def supervised_term(self, chosen: Logps) -> Tensor:
        return -self.weight * chosen.policy / chosen.length


@hookimpl
def register_objectives(register: Register) -> None:
    register(CPO)
