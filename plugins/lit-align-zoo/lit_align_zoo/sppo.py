"""Self-Play Preference Optimization (Wu et al., 2024, https://arxiv.org/abs/2405.00675)."""

from dataclasses import dataclass

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class SPPO(PairwiseObjective):
    r"""Pull the log-ratio of each response to its own target: up for the chosen one, down for the rejected one.

    .. math:: \Big(\log\tfrac{\pi_w}{\rho_w} - \tfrac{1}{2\beta}\Big)^2
        + \Big(\log\tfrac{\pi_l}{\rho_l} + \tfrac{1}{2\beta}\Big)^2 \quad \text{(eq. 4.7)}

    The paper pulls to η (P - 1/2), where P is the probability that the response beats another one of the policy. Here
    η is 1 / beta, and P is 1 for the chosen response and 0 for the rejected one.

    Args:
        beta: regularisation; the targets are ± 1 / (2 beta) nats. The paper's η of 1000 is a beta of 0.001.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        Log-ratios of 3 and -4, and targets of 5 and -5: 4 + 1.

        >>> SPPO(beta=0.1)(Logps.from_lists([-10.0], [-13.0]), Logps.from_lists([-24.0], [-20.0]))
        tensor([5.])
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "the paper uses 0.001")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        target = 1 / (2 * self.beta)
        chosen_loss = (chosen.policy - chosen.reference - target) ** 2
        return chosen_loss + (rejected.policy - rejected.reference + target) ** 2


@hookimpl
def register_objectives(register: Register) -> None:
    register(SPPO)
