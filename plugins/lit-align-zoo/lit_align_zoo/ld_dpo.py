"""Length-desensitised DPO (Liu et al., 2024, https://arxiv.org/abs/2409.06411)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_fraction, check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class LDDPO(PairwiseObjective):
    r"""DPO that down-weights the tokens beyond the length of the shorter response.

    .. math:: -\log\sigma\big(\beta\,(u_w - u_l)\big), \quad
        u = \sum_{t \le m}\log\tfrac{\pi_\theta(y_t)}{\pi_\text{ref}(y_t)}
        + \alpha\sum_{t > m}\log\tfrac{\pi_\theta(y_t)}{\pi_\text{ref}(y_t)}, \quad m = \min(|y_w|, |y_l|)

    The logged implicit reward is DPO's: it does not depend on what a response is compared with.

    Args:
        beta: pull towards the reference.
        alpha: weight of a token beyond the shorter response's length, 0 to 1; 1 is DPO.

    Raises:
        ConfigError: if beta is not positive, or alpha is not from 0 to 1.

    Example:
        The chosen response gains 4 nats in each of 3 tokens and the rejected one loses 2 in its only one: a margin of
        4 + 0.5 * 8 + 2, and log(1 + 1/e).

        >>> from lit_align.objectives import PerTokenLogps
        >>> chosen = PerTokenLogps(torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[-5.0, -5.0, -5.0]]))
        >>> rejected = PerTokenLogps(torch.tensor([[-4.0, 0.0, 0.0]]), torch.tensor([[-2.0, 0.0, 0.0]]))
        >>> sides = Logps.from_lists([-3.0], [-15.0], length=[3]), Logps.from_lists([-4.0], [-2.0], length=[1])
        >>> LDDPO(beta=0.1, alpha=0.5)(sides[0]._replace(tokens=chosen), sides[1]._replace(tokens=rejected))
        tensor([0.3133])
    """

    margin_only: ClassVar[bool] = True
    token_fields: ClassVar[frozenset[str]] = frozenset({"policy", "reference"})

    beta: float = 0.1
    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "0.1 is usual")
        check_fraction("alpha", self.alpha, "1 is DPO")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        shared = torch.minimum(chosen.length, rejected.length)
        return -logsigmoid(
            self.beta * (self._ratio(chosen, shared) - self._ratio(rejected, shared))
        )

    def _ratio(self, logps: Logps, shared: Tensor) -> Tensor:
        """u, ``[pairs]``; padding is 0 in both models."""
        ratio = logps.tokens.policy - logps.tokens.reference
        excess = torch.arange(ratio.shape[1], device=ratio.device) >= shared[:, None]
        return torch.where(excess, self.alpha * ratio, ratio).sum(1)


@hookimpl
def register_objectives(register: Register) -> None:
    register(LDDPO)
