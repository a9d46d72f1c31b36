"""DPO that also imitates the chosen response (Pang et al., 2024, https://arxiv.org/abs/2404.19733)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class RPO(PairwiseObjective):
    r"""Raise the chosen response over the rejected one, and raise it outright too.

    DPO alone may lower both, so long as the rejected one falls further; the second term holds the chosen one up, which
    keeps answers from collapsing when data are few.

    .. math:: -\log\sigma\big(\beta\log\tfrac{\pi_w}{\rho_w} - \beta\log\tfrac{\pi_l}{\rho_l}\big)
        - \alpha\,\frac{\log\pi_w}{|y_w|} \quad \text{(eqs. 1 and 2)}

    Args:
        beta: pull towards the reference.
        alpha: weight of the imitation; the paper uses 1.

    Raises:
        ValueError: if beta is not positive or alpha is negative.

    Example:
        >>> RPO(beta=0.1, alpha=1.0)(Logps.of([-10.0], [-10.0], [5]), Logps.of([-30.0], [-20.0]))  # 0.3133 + 10 / 5
        tensor([2.3133])
    """

    beta: float = 0.1
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; the paper uses 0.1")
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}; the paper uses 1")

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return -logsigmoid(self.reward(chosen) - self.reward(rejected)) - self.alpha * chosen.policy / chosen.length


@hookimpl
def register_objectives(register: Register) -> None:
    register(RPO)
