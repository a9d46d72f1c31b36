"""Weighted Preference Optimization (Zhou et al., 2024, https://arxiv.org/abs/2406.11827)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class WPO(PairwiseObjective):
    r"""DPO that weighs a pair by how likely the policy itself would be to say both responses.

    .. math:: -w_w\,w_l\,\log\sigma\big(r_w - r_l\big), \quad
        w = \exp\Big(\tfrac{1}{|y|}\sum_t\log\tfrac{\pi(y_t)}{\sum_v \pi(v)^2}\Big) \quad \text{(eq. 2)}

    The weights carry no gradient. A token counts against the chance that two draws from the policy agree there, so
    that what the policy samples weighs about 1 or a little less, however uncertain the policy is.

    Args:
        beta: pull towards the reference.

    Raises:
        ValueError: if beta is not positive.

    Example:
        Level rewards cost log 2. Each token of the chosen response has half the chance of an agreement, those of the
        rejected one just that: weights of 1/2 and 1.

        >>> import torch
        >>> from lit_align.objectives import PerTokenLogps
        >>> chosen = PerTokenLogps(torch.tensor([[-1.3863, -1.3863]]), collision=torch.tensor([[-0.6931, -0.6931]]))
        >>> rejected = PerTokenLogps(torch.tensor([[-0.6931, 0.0]]), collision=torch.tensor([[-0.6931, 0.0]]))
        >>> sides = Logps.from_lists([-2.7726], [-2.7726], length=[2]), Logps.from_lists([-0.6931], [-0.6931], length=[1])
        >>> WPO(beta=0.1)(sides[0]._replace(tokens=chosen), sides[1]._replace(tokens=rejected))
        tensor([0.3466])
    """

    symmetric: ClassVar[bool] = True
    weighs: ClassVar[bool] = True
    per_token: ClassVar[frozenset[str]] = frozenset({"policy", "collision"})

    beta: float = 0.1

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; 0.01 to 0.1 is usual")

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        weight = (_log_weight(chosen) + _log_weight(rejected)).exp()
        return -weight * logsigmoid(self.reward(chosen) - self.reward(rejected))


def _log_weight(side: Logps) -> Tensor:
    """log w, ``[pairs]``, detached; what lies behind the end of a response is 0 in both terms."""
    return (side.tokens.policy.detach() - side.tokens.collision).sum(1) / side.length


@hookimpl
def register_objectives(register: Register) -> None:
    register(WPO)
