"""Length-normalised DPO (Tülu 3: Lambert et al., 2024, https://arxiv.org/abs/2411.15124)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class LengthNormalizedDPO(PairwiseObjective):
    r"""DPO on log-ratios per token, so that a response earns nothing by its length.

    .. math:: -\log\sigma\Big(\tfrac{\beta}{|y_w|}\log\tfrac{\pi_w}{\rho_w}
        - \tfrac{\beta}{|y_l|}\log\tfrac{\pi_l}{\rho_l}\Big)

    Args:
        beta: pull towards the reference, per token; Tülu 3 uses 5, some fifty times that of DPO.

    Raises:
        ValueError: if beta is not positive.

    Example:
        0.2 nats a token against -0.3, times 2: log(1 + 1/e).

        >>> chosen, rejected = Logps.from_lists([-10.0], [-12.0], length=[10]), Logps.from_lists([-7.2], [-6.0], length=[4])
        >>> LengthNormalizedDPO(beta=2.0)(chosen, rejected)
        tensor([0.3133])
    """

    symmetric: ClassVar[bool] = True

    beta: float = 5.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; Tülu 3 uses 5")

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference) / side.length

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return -logsigmoid(self.reward(chosen) - self.reward(rejected))


@hookimpl
def register_objectives(register: Register) -> None:
    register(LengthNormalizedDPO)
