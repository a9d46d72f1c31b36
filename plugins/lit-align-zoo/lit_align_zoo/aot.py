"""Alignment via Optimal Transport, paired (Melnyk et al., 2024, https://arxiv.org/abs/2406.05882)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class AOT(PairwiseObjective):
    r"""Raise the policy's margins over the reference's as distributions: the k-th smallest over the k-th smallest.

    .. math:: -\log\sigma\big(\beta\,(m_{(k)} - n_{(k)})\big), \quad
        m = \log\tfrac{\pi_\theta(y_w)}{\pi_\theta(y_l)}, \quad n = \log\tfrac{\pi_\text{ref}(y_w)}{\pi_\text{ref}(y_l)}

    where (k) is the rank after sorting over the batch. The loss at rank k is that of the pair whose policy margin
    has that rank. With one pair in a batch it is DPO; estimating the distributions takes a few dozen.

    Args:
        beta: pull towards the reference.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        The policy has margins of 30 and 10, the reference 0 and 20: sorted, 10 over 0 and 30 over 20.

        >>> chosen = Logps.from_lists([-10.0, -10.0], [-10.0, -10.0])
        >>> AOT(beta=0.1)(chosen, Logps.from_lists([-40.0, -20.0], [-10.0, -30.0]))
        tensor([0.3133, 0.3133])
    """

    margin_only: ClassVar[bool] = True
    couples_batch: ClassVar[bool] = True

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "0.01 to 0.1 is usual")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        margin = chosen.policy - rejected.policy
        rank = margin.argsort(stable=True).argsort()
        reference_margin = (chosen.reference - rejected.reference).sort().values[rank]
        return -logsigmoid(self.beta * (margin - reference_margin))


@hookimpl
def register_objectives(register: Register) -> None:
    register(AOT)
