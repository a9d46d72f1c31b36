"""Alignment via Optimal Transport, unpaired (Melnyk et al., 2024, https://arxiv.org/abs/2406.05882)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class AOTUnpaired(PairwiseObjective):
    r"""Raise the chosen responses over the rejected ones as distributions, regardless of the pairing.

    .. math:: -\log\sigma\big(\beta\,(u_{(k)} - v_{(k)})\big), \quad
        u = \log\tfrac{\pi_\theta(y_w)}{\pi_\text{ref}(y_w)}, \quad v = \log\tfrac{\pi_\theta(y_l)}{\pi_\text{ref}(y_l)}

    where (k) is the rank after sorting each side over the batch. The loss at rank k is that of the pair whose chosen
    response has that rank. With one pair in a batch it is DPO; estimating the distributions takes a few dozen.

    Args:
        beta: pull towards the reference.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        Log-ratios of 30 and 10 for the chosen, of 0 and 20 for the rejected: sorted, 10 over 0 and 30 over 20.

        >>> chosen = Logps.from_lists([-10.0, -10.0], [-40.0, -20.0])
        >>> AOTUnpaired(beta=0.1)(chosen, Logps.from_lists([-10.0, -10.0], [-10.0, -30.0]))
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
        ratio = chosen.policy - chosen.reference
        rank = ratio.argsort(stable=True).argsort()
        rejected_ratio = (rejected.policy - rejected.reference).sort().values[rank]
        return -logsigmoid(self.beta * (ratio - rejected_ratio))


@hookimpl
def register_objectives(register: Register) -> None:
    register(AOTUnpaired)
