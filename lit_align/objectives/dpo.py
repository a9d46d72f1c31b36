"""Direct Preference Optimization (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class DPO(PairwiseObjective):
    r"""Raise the chosen response over the rejected one, relative to the reference.

    .. math:: -\log\sigma\big(\beta\log\tfrac{\pi_w}{\rho_w} - \beta\log\tfrac{\pi_l}{\rho_l}\big) \quad \text{(eq. 7)}

    Args:
        beta: pull towards the reference; the paper uses 0.1 to 0.5.

    Raises:
        ValueError: if beta is not positive.

    Example:
        >>> DPO(beta=0.1)(Logps.from_lists([-10.0], [-10.0]), Logps.from_lists([-30.0], [-20.0]))  # log(1 + 1/e)
        tensor([0.3133])
    """

    symmetric: ClassVar[bool] = True

    beta: float = 0.1

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; the paper uses 0.1 to 0.5")

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference)  # eq. 5, without the term that cancels

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return -logsigmoid(self.reward(chosen) - self.reward(rejected))


@hookimpl
def register_objectives(register: Register) -> None:
    register(DPO)
