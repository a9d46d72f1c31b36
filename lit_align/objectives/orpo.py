"""Odds Ratio Preference Optimization (Hong et al., 2024, https://arxiv.org/abs/2403.07691)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class ORPO(PairwiseObjective):
    r"""Imitate the chosen response, and raise its odds over those of the rejected one; no reference model.

    .. math:: -\log p_w - \lambda\log\sigma\Big(\log\tfrac{p_w}{1 - p_w} - \log\tfrac{p_l}{1 - p_l}\Big),
        \quad \log p = \tfrac{1}{|y|}\log\pi \quad \text{(eqs. 6 and 7)}

    Args:
        weight: λ; the paper uses 0.1 to 1.0. TRL calls it beta.

    Raises:
        ValueError: if weight is not positive.

    Example:
        Probabilities of 1/2 and 1/4 a token: odds of 1 and 1/3, so log 2 + 0.1 log(1 + 1/3).

        >>> ORPO(weight=0.1)(Logps.from_lists([-1.38629], length=[2]), Logps.from_lists([-4.15888], length=[3]))
        tensor([0.7219])
    """

    needs_reference: ClassVar[bool] = False

    weight: float = 0.1

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(
                f"weight must be positive, got {self.weight}; the paper uses 0.1 to 1.0"
            )

    def reward(self, side: Logps) -> Tensor:
        return self.weight * side.policy / side.length

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return self.imitation(chosen) - self.weight * logsigmoid(
            _log_odds(chosen) - _log_odds(rejected)
        )

    def imitation(self, chosen: Logps) -> Tensor:
        return -chosen.policy / chosen.length


def _log_odds(side: Logps) -> Tensor:
    """log(p / (1 - p)) of a token; finite also for a response that is certain."""
    logp = (side.policy / side.length).clamp(max=-torch.finfo(side.policy.dtype).tiny)
    return logp - (-torch.expm1(logp)).log()


@hookimpl
def register_objectives(register: Register) -> None:
    register(ORPO)
