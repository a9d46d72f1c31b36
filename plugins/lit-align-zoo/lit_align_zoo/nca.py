"""Noise Contrastive Alignment (Chen et al., 2024, https://arxiv.org/abs/2402.05369)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class NCA(PairwiseObjective):
    r"""Noise-contrastive loss on the absolute reward, so that the chosen log-probability does not fall too.

    .. math:: -\log\sigma(r_w) - \tfrac12\log\sigma(-r_w) - \tfrac12\log\sigma(-r_l), \quad
        r = \beta\log\tfrac{\pi_\theta}{\pi_\text{ref}}

    This is the paper's loss for pairs: two responses, all of the reward on the chosen one. The first two terms have
    their minimum at r_w = log 2: the chosen response is raised up to there and no further.

    Args:
        beta: pull towards the reference.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        Rewards of 1 and -1 cost 0.3133, half of 1.3133 and half of 0.3133.

        >>> NCA(beta=0.1)(Logps.from_lists([-10.0], [-20.0]), Logps.from_lists([-30.0], [-20.0]))
        tensor([1.1265])
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "0.01 to 0.1 is usual")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        chosen_reward, rejected_reward = (
            self.implicit_reward(chosen),
            self.implicit_reward(rejected),
        )
        noise_term = (logsigmoid(-chosen_reward) + logsigmoid(-rejected_reward)) / 2
        return -logsigmoid(chosen_reward) - noise_term


@hookimpl
def register_objectives(register: Register) -> None:
    register(NCA)
