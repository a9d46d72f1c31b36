"""Rankings of K responses, for a reward model (Plackett, 1975, https://doi.org/10.2307/2346567)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.functional.plackett_luce import plackett_luce
from lit_align.objectives import Logps, RankedObjective


@dataclass(frozen=True)
class PlackettLuce(RankedObjective):
    r"""Negative log-probability of an order of K responses, each drawn as the best of the rest; Bradley-Terry at K = 2.

    .. math:: -\sum_{k=1}^{K-1}\log\frac{\exp r_{\tau(k)}}{\sum_{j=k}^{K}\exp r_{\tau(j)}} \quad \text{(eq. 3)}

    Ties and rankings of the first few of many: see `lit_align.functional.plackett_luce.plackett_luce`.

    Example:
        Three responses of equal score: log 3 for the first draw and log 2 for the second, log 6 together.

        >>> import torch
        >>> PlackettLuce()(Logps.from_lists([0.0] * 3), torch.tensor([[2, 0, 1]]), torch.tensor([[1, 2, 3]]))
        tensor([1.7918])
    """

    for_reward_model: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = False

    def implicit_reward(self, logps: Logps) -> Tensor:
        return logps.policy

    def __call__(self, responses: Logps, order: Tensor, place: Tensor) -> Tensor:
        return plackett_luce(responses.policy, order, place)


@hookimpl
def register_objectives(register: Register) -> None:
    register(PlackettLuce)
