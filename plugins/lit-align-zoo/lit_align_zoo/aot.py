"""Alignment via Optimal Transport, paired (Melnyk et al., 2024, https://arxiv.org/abs/2406.05882)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class AOT(PairwiseObjective):
    r"""Raise the policy's margins over the reference's as distributions: the k-th smallest over the k-th smallest.

    .. math:: -\log\sigma\big(\beta\,(m_{(k)} - n_{(k)})\big), \quad
        m = \log\tfrac{\pi_w}{\pi_l}, \quad n = \log\tfrac{\rho_w}{\rho_l}

    where (k) is the place after sorting over the batch. The loss of a place is that of the pair whose policy margin
    stands there. With one pair in a batch it is DPO; it needs some dozens to tell a distribution.

    Args:
        beta: pull towards the reference.

    Raises:
        ValueError: if beta is not positive.

    Example:
        The policy has margins of 30 and 10, the reference 0 and 20: sorted, 10 over 0 and 30 over 20.

        >>> AOT(beta=0.1)(Logps.from_lists([-10.0, -10.0], [-10.0, -10.0]), Logps.from_lists([-40.0, -20.0], [-10.0, -30.0]))
        tensor([0.3133, 0.3133])
    """

    symmetric: ClassVar[bool] = True
    couples_batch: ClassVar[bool] = True

    beta: float = 0.1

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; 0.01 to 0.1 is usual")

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        margin = chosen.policy - rejected.policy
        place = margin.argsort(stable=True).argsort()
        matched = (chosen.reference - rejected.reference).sort().values[place]
        return -logsigmoid(self.beta * (margin - matched))


@hookimpl
def register_objectives(register: Register) -> None:
    register(AOT)
