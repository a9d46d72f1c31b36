"""DPO over rankings (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290, appendix A.3)."""

from dataclasses import dataclass

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.functional.plackett_luce import plackett_luce
from lit_align.objectives import Logps, RankedObjective


@dataclass(frozen=True)
class PlackettLuceDPO(RankedObjective):
    r"""Negative log-probability of an order of K responses, each drawn as the best of the rest; DPO at K = 2.

    .. math:: -\sum_{k=1}^{K-1}\log\frac{\exp r_{\tau(k)}}{\sum_{j=k}^{K}\exp r_{\tau(j)}},
        \quad r = \beta\log\tfrac{\pi_\theta}{\pi_\text{ref}} \quad \text{(eq. 20)}

    Ties and rankings of the first few of many: see `lit_align.functional.plackett_luce.plackett_luce`.

    Args:
        beta: pull towards the reference.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        Three responses of equal reward: log 3 for the first draw and log 2 for the second, log 6 together.

        >>> import torch
        >>> order, place = torch.tensor([[2, 0, 1]]), torch.tensor([[1, 2, 3]])
        >>> PlackettLuceDPO(beta=0.1)(Logps.from_lists([-10.0] * 3, [-10.0] * 3), order, place)
        tensor([1.7918])
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "the paper uses 0.1 to 0.5")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, responses: Logps, order: Tensor, place: Tensor) -> Tensor:
        return plackett_luce(self.implicit_reward(responses), order, place)


@hookimpl
def register_objectives(register: Register) -> None:
    register(PlackettLuceDPO)
