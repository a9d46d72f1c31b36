"""Weighted Preference Optimization (Zhou et al., 2024, https://arxiv.org/abs/2406.11827)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class WPO(PairwiseObjective):
    r"""DPO that weights a pair by the probability of its responses under the policy.

    .. math:: -w_w\,w_l\,\log\sigma\big(r_w - r_l\big), \quad
        w = \exp\Big(\tfrac{1}{|y|}\sum_t\log\tfrac{\pi_\theta(y_t)}{\sum_v \pi_\theta(v)^2}\Big) \quad \text{(eq. 2)}

    The weights have no gradient. A token's log-probability is relative to that of two draws from the policy agreeing,
    so that the policy's own samples weigh about 1 or a little less, however high its entropy.

    Args:
        beta: pull towards the reference.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        Equal rewards cost log 2. Each token of the chosen response has half the probability of an agreement, those of
        the rejected one exactly that: weights of 1/2 and 1.

        >>> import torch
        >>> from lit_align.objectives import PerTokenLogps
        >>> chosen = PerTokenLogps(torch.tensor([[-1.3863, -1.3863]]), collision=torch.tensor([[-0.6931, -0.6931]]))
        >>> rejected = PerTokenLogps(torch.tensor([[-0.6931, 0.0]]), collision=torch.tensor([[-0.6931, 0.0]]))
        >>> y_w = Logps.from_lists([-2.7726], [-2.7726], length=[2])._replace(tokens=chosen)
        >>> y_l = Logps.from_lists([-0.6931], [-0.6931], length=[1])._replace(tokens=rejected)
        >>> WPO(beta=0.1)(y_w, y_l)
        tensor([0.3466])
    """

    margin_only: ClassVar[bool] = True
    has_stop_gradient_weight: ClassVar[bool] = True
    token_fields: ClassVar[frozenset[str]] = frozenset({"policy", "collision"})

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "0.01 to 0.1 is usual")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        weight = (_log_weight(chosen) + _log_weight(rejected)).exp()
        return -weight * logsigmoid(self.implicit_reward(chosen) - self.implicit_reward(rejected))


def _log_weight(logps: Logps) -> Tensor:
    """log w, ``[pairs]``, detached; padding is 0 in both terms."""
    return (logps.tokens.policy.detach() - logps.tokens.collision).sum(1) / logps.length


@hookimpl
def register_objectives(register: Register) -> None:
    register(WPO)
