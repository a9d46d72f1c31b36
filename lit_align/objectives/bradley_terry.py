"""The loss of a reward model over comparisons (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_at_least
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class BradleyTerry(PairwiseObjective):
    r"""Raise the score of the chosen response above the other; it wins with probability σ of the difference.

    .. math:: -\log\sigma\big(r_w - r_l - a\,m\big) + c\,(r_w + r_l)^2

    Equation 1 of Ouyang et al.; the stage counts all comparisons of one prompt as one, as they do. The margin is
    equation 2 of Touvron et al. (2023, https://arxiv.org/abs/2307.09288), the square is equation 2 of Eisenstein et al.
    (2023, https://arxiv.org/abs/2312.09244): scores are only determined up to a constant, and it keeps that near 0.

    Args:
        margin: a: scale from the labels' margin m to scores; 0 ignores margins.
        centre: c: pull of the two scores towards a sum of 0; Eisenstein et al. use 0.01.

    Raises:
        ConfigError: if margin or centre is negative.

    Example:
        The chosen response leads by 1, and should lead by 3: log(1 + e^2).

        >>> import torch
        >>> BradleyTerry()(Logps.from_lists([1.0]), Logps.from_lists([0.0]), margin=torch.tensor([3.0]))
        tensor([2.1269])
    """

    margin: float = 1.0
    centre: float = 0.0
    for_reward_model: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = False
    needs_margin: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_at_least("margin", self.margin, 0)
        check_at_least("centre", self.centre, 0)

    def implicit_reward(self, logps: Logps) -> Tensor:
        return logps.policy

    def __call__(self, chosen: Logps, rejected: Logps, margin: Tensor | float = 0.0) -> Tensor:
        lead = chosen.policy - rejected.policy - self.margin * margin
        return -logsigmoid(lead) + self.centre * (chosen.policy + rejected.policy).square()


@hookimpl
def register_objectives(register: Register) -> None:
    register(BradleyTerry)
