"""Robust DPO (Chowdhury et al., 2024, https://arxiv.org/abs/2403.00409)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.errors import ConfigError
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class RobustDPO(PairwiseObjective):
    r"""Unbiased DPO loss under labels that are flipped at a known rate.

    .. math:: \frac{(1 - \varepsilon)\,\ell(w, l) - \varepsilon\,\ell(l, w)}{1 - 2\varepsilon},
        \qquad \ell(w, l) = -\log\sigma(r_w - r_l)

    Args:
        beta: pull towards the reference.
        flipped: probability that a label is wrong, at least 0 and under 0.5.

    Raises:
        ConfigError: if beta is not positive, or flipped is not at least 0 and under 0.5.

    Example:
        At a margin of 0 both orders cost log 2, and the weights sum to 1.

        >>> RobustDPO(flipped=0.1)(Logps.from_lists([-10.0], [-10.0]), Logps.from_lists([-20.0], [-20.0]))
        tensor([0.6931])

        At a margin of 1 they cost 0.3133 and 1.3133, and (0.9 * 0.3133 - 0.1 * 1.3133) / 0.8 = 0.1883.

        >>> RobustDPO(flipped=0.1)(Logps.from_lists([-10.0], [-10.0]), Logps.from_lists([-30.0], [-20.0]))
        tensor([0.1883])
    """

    margin_only: ClassVar[bool] = True

    beta: float = 0.1
    flipped: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "0.1 to 0.5 is usual")
        if not 0 <= self.flipped < 0.5:
            raise ConfigError(
                f"flipped must be at least 0 and under 0.5, got {self.flipped}; if most labels are wrong, swap them"
            )

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        margin = self.implicit_reward(chosen) - self.implicit_reward(rejected)
        loss, flipped_loss = -logsigmoid(margin), -logsigmoid(-margin)
        difference = (1 - self.flipped) * loss - self.flipped * flipped_loss
        return difference / (1 - 2 * self.flipped)


@hookimpl
def register_objectives(register: Register) -> None:
    register(RobustDPO)
