"""Length-normalised DPO (Tülu 3: Lambert et al., 2024, https://arxiv.org/abs/2411.15124)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class LengthNormalizedDPO(PairwiseObjective):
    r"""DPO on log-ratios per token, which removes the reward for length.

    .. math:: -\log\sigma\Big(\tfrac{\beta}{|y_w|}\log\tfrac{\pi_\theta(y_w)}{\pi_\text{ref}(y_w)}
        - \tfrac{\beta}{|y_l|}\log\tfrac{\pi_\theta(y_l)}{\pi_\text{ref}(y_l)}\Big)

    Args:
        beta: pull towards the reference, per token; Tülu 3 uses 5, some fifty times that of DPO.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        0.2 nats a token against -0.3, times 2: log(1 + 1/e).

        >>> chosen = Logps.from_lists([-10.0], [-12.0], length=[10])
        >>> LengthNormalizedDPO(beta=2.0)(chosen, Logps.from_lists([-7.2], [-6.0], length=[4]))
        tensor([0.3133])
    """

    margin_only: ClassVar[bool] = True

    beta: float = 5.0

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "Tülu 3 uses 5")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference) / logps.length

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return -logsigmoid(self.implicit_reward(chosen) - self.implicit_reward(rejected))


@hookimpl
def register_objectives(register: Register) -> None:
    register(LengthNormalizedDPO)
