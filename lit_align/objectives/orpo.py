"""Odds Ratio Preference Optimization (Hong et al., 2024, https://arxiv.org/abs/2403.07691)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class ORPO(PairwiseObjective):
    r"""Cross-entropy on the chosen response plus a log odds ratio against the rejected one; no reference model.

    .. math:: -\log p_w - \lambda\log\sigma\Big(\log\tfrac{p_w}{1 - p_w} - \log\tfrac{p_l}{1 - p_l}\Big),
        \quad \log p = \tfrac{1}{|y|}\log\pi_\theta \quad \text{(eqs. 6 and 7)}

    Args:
        weight: λ; the paper uses 0.1 to 1.0. TRL calls it beta.

    Raises:
        ConfigError: if weight is not positive.

    Example:
        Probabilities of 1/2 and 1/4 a token: odds of 1 and 1/3, so log 2 + 0.1 log(1 + 1/3).

        >>> ORPO(weight=0.1)(Logps.from_lists([-1.38629], length=[2]), Logps.from_lists([-4.15888], length=[3]))
        tensor([0.7219])
    """

    needs_reference: ClassVar[bool] = False

    weight: float = 0.1

    def __post_init__(self) -> None:
        check_positive("weight", self.weight, "the paper uses 0.1 to 1.0")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.weight * logps.policy / logps.length

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return self.supervised_term(chosen) - self.weight * logsigmoid(
            _log_odds(chosen) - _log_odds(rejected)
        )

    def supervised_term(self, chosen: Logps) -> Tensor:
        return -chosen.policy / chosen.length


def _log_odds(logps: Logps) -> Tensor:
    """log(p / (1 - p)) of a token; finite even at a probability of 1."""
    logp = (logps.policy / logps.length).clamp(max=-torch.finfo(logps.policy.dtype).tiny)
    return logp - (-torch.expm1(logp)).log()


@hookimpl
def register_objectives(register: Register) -> None:
    register(ORPO)
