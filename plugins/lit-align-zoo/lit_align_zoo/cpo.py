"""Contrastive Preference Optimization (Xu et al., 2024, https://arxiv.org/abs/2401.08417)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class CPO(PairwiseObjective):
    r"""DPO against a uniform reference, which is none, with imitation of the chosen response in its place.

    .. math:: -\log\sigma\big(\beta\log\pi_w - \beta\log\pi_l\big) - \tfrac{\lambda}{|y_w|}\log\pi_w
        \quad \text{(eq. 3, and the likelihood that the paper adds to it)}

    The likelihood is averaged over the tokens of each response, so that long ones do not drown the comparison.

    Args:
        beta: scale of the log-probabilities; the paper uses 0.1.
        weight: λ, of the imitation; the paper uses 1. TRL calls it cpo_alpha.

    Raises:
        ValueError: if beta is not positive or weight is negative.

    Example:
        A margin of 0.1 * 10 costs log(1 + 1/e) = 0.3133, and imitation 10 nats over 10 tokens.

        >>> CPO(beta=0.1, weight=1.0)(Logps.from_lists([-10.0], length=[10]), Logps.from_lists([-20.0]))
        tensor([1.3133])
    """

    needs_reference: ClassVar[bool] = False

    beta: float = 0.1
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; the paper uses 0.1")
        if not self.weight >= 0:
            raise ValueError(
                f"weight must not be negative, got {self.weight}; 0 leaves the imitation out"
            )

    def reward(self, side: Logps) -> Tensor:
        return self.beta * side.policy

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return self.imitation(chosen) - logsigmoid(self.reward(chosen) - self.reward(rejected))

    def imitation(self, chosen: Logps) -> Tensor:
        return -self.weight * chosen.policy / chosen.length


@hookimpl
def register_objectives(register: Register) -> None:
    register(CPO)
