"""Clipped importance weights on the policy gradient (MiniMax-M1: Chen et al., 2025, https://arxiv.org/abs/2506.13585)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import PolicyObjective, PolicyTokens
from lit_align.objectives.ppo import MAX_LOG_RATIO


@dataclass(frozen=True)
class CISPO(PolicyObjective):
    r"""Policy gradient in which a token's weight is clipped, not its gradient: rare tokens that decide go on learning.

    .. math:: -\operatorname{sg}\big(\min(r, c)\big)\,A\,\log\pi_\theta(y_t), \quad
        r = \frac{\pi_\theta(y_t)}{\pi_\text{old}(y_t)} \quad \text{(eq. 4)}

    In the first update of a batch r is 1, and this is `PolicyGradient`: it differs with several updates of the same
    samples.

    Args:
        cap: c: the largest weight of a token (ScaleRL: Khatri et al., 2025, https://arxiv.org/abs/2510.13786, use 5).

    Raises:
        ConfigError: if cap is not positive.

    Example:
        Eight times as probable as before: the weight is 5, and log π is log 0.8.

        >>> logps, old_logps = torch.tensor([0.8]).log(), torch.tensor([0.1]).log()
        >>> CISPO()(PolicyTokens(logps, old_logps, old_logps, torch.tensor([0])), torch.tensor([1.0]))
        tensor([1.1157])
    """

    cap: float = 5.0
    has_stop_gradient_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive("cap", self.cap, "5 is usual")

    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        return -self._ratio(tokens).clamp(max=self.cap) * advantages * tokens.policy

    def clip_mask(self, tokens: PolicyTokens) -> Tensor:
        return self._ratio(tokens) > self.cap

    def _ratio(self, tokens: PolicyTokens) -> Tensor:
        log_ratio = (tokens.policy - tokens.old_policy).detach()
        return torch.exp(log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


@hookimpl
def register_objectives(register: Register) -> None:
    register(CISPO)
