"""Identity Preference Optimization (Azar et al., 2023, https://arxiv.org/abs/2310.12036)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class IPO(PairwiseObjective):
    r"""Pull the log-ratio margin of a pair to a fixed target, so that labels without noise cannot push it to infinity.

    .. math:: \Big(\log\tfrac{\pi_\theta(y_w)}{\pi_\text{ref}(y_w)} - \log\tfrac{\pi_\theta(y_l)}{\pi_\text{ref}(y_l)}
        - \tfrac{1}{2\beta}\Big)^2 \quad \text{(eq. 17)}

    Args:
        beta: regularisation; the target margin is 1 / (2 beta) nats.
        length_average: average the log-ratios over the tokens of each response, as TRL does, instead of summing them
            as the paper does; the target is then in nats per token.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        >>> IPO(beta=0.1)(Logps.from_lists([-10.0], [-12.0]), Logps.from_lists([-20.0], [-20.0]))  # (2 - 5) ** 2
        tensor([9.])
    """

    margin_only: ClassVar[bool] = True

    beta: float = 0.1
    length_average: bool = False

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "the paper uses 0.1 to 1.0")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return (self._ratio(chosen) - self._ratio(rejected) - 1 / (2 * self.beta)) ** 2

    def _ratio(self, logps: Logps) -> Tensor:
        ratio = logps.policy - logps.reference
        return ratio / logps.length if self.length_average else ratio


@hookimpl
def register_objectives(register: Register) -> None:
    register(IPO)
