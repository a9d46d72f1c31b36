"""Noise Contrastive Alignment (Chen et al., 2024, https://arxiv.org/abs/2402.05369)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class NCA(PairwiseObjective):
    r"""Tell the chosen response from noise by its own likelihood, so that it does not fall along with the rejected one.

    .. math:: -\log\sigma(r_w) - \tfrac12\log\sigma(-r_w) - \tfrac12\log\sigma(-r_l), \quad
        r = \beta\log\tfrac{\pi}{\rho}

    This is the paper's loss for pairs: two responses, all of the reward on the chosen one. The first two terms are
    least at r_w = log 2, so the chosen response is raised up to there and no further.

    Args:
        beta: pull towards the reference.

    Raises:
        ValueError: if beta is not positive.

    Example:
        Rewards of 1 and -1 cost 0.3133, half of 1.3133 and half of 0.3133.

        >>> NCA(beta=0.1)(Logps.from_lists([-10.0], [-20.0]), Logps.from_lists([-30.0], [-20.0]))
        tensor([1.1265])
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; 0.01 to 0.1 is usual")

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        up, down = self.reward(chosen), self.reward(rejected)
        return -logsigmoid(up) - (logsigmoid(-up) + logsigmoid(-down)) / 2


@hookimpl
def register_objectives(register: Register) -> None:
    register(NCA)
