"""Alignment via Optimal Transport, unpaired (Melnyk et al., 2024, https://arxiv.org/abs/2406.05882)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class AOTUnpaired(PairwiseObjective):
    r"""Raise the chosen responses over the rejected ones as distributions, whichever was compared with which.

    .. math:: -\log\sigma\big(\beta\,(u_{(k)} - v_{(k)})\big), \quad
        u = \log\tfrac{\pi_w}{\rho_w}, \quad v = \log\tfrac{\pi_l}{\rho_l}

    where (k) is the place after sorting each side over the batch. The loss of a place is that of the pair whose chosen
    response stands there. With one pair in a batch it is DPO; it needs some dozens to tell a distribution.

    Args:
        beta: pull towards the reference.

    Raises:
        ValueError: if beta is not positive.

    Example:
        Log-ratios of 30 and 10 for the chosen, of 0 and 20 for the rejected: sorted, 10 over 0 and 30 over 20.

        >>> AOTUnpaired(beta=0.1)(Logps.from_lists([-10.0, -10.0], [-40.0, -20.0]), Logps.from_lists([-10.0, -10.0], [-10.0, -30.0]))
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
        ratio = chosen.policy - chosen.reference
        place = ratio.argsort(stable=True).argsort()
        matched = (rejected.policy - rejected.reference).sort().values[place]
        return -logsigmoid(self.beta * (ratio - matched))


@hookimpl
def register_objectives(register: Register) -> None:
    register(AOTUnpaired)
