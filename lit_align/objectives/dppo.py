"""Policy gradient within a divergence of the policy that sampled (DPPO, 2026, https://arxiv.org/abs/2602.04879)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_at_least, check_positive
from lit_align.objectives import PolicyObjective, PolicyTokens
from lit_align.objectives.ppo import MAX_LOG_RATIO


@dataclass(frozen=True)
class DPPO(PolicyObjective):
    r"""Policy gradient on ratios that stops where a token's probability, not its ratio, has moved far enough.

    .. math:: -m\,A\,r + \tau \log^2 r, \quad m = \begin{cases}
        [\,\pi_\theta(y_t) - \pi_\text{old}(y_t) \le \delta_\text{high}\,] & A > 0 \\
        [\,\pi_\theta(y_t) - \pi_\text{old}(y_t) \ge -\delta_\text{low}\,] & A \le 0 \end{cases}

    The difference of the two probabilities is the total variation that the token accounts for. A ratio bounds rare
    tokens too tightly, and frequent ones hardly. The second term holds all tokens near the policy that sampled (Kimi
    K2.5, 2026, https://arxiv.org/abs/2602.02276).

    Args:
        low: δ_low: how far a probability may fall, where that is an improvement.
        high: δ_high: how far it may rise.
        log_ratio_penalty: τ: weight of the squared log-ratio.

    Raises:
        ConfigError: unless low and high are positive, and log_ratio_penalty at least 0.

    Example:
        Both are twice as probable as before. The first has risen by 0.01, the second by 0.3, which is too far.

        >>> logps, old_logps = torch.tensor([0.02, 0.6]).log(), torch.tensor([0.01, 0.3]).log()
        >>> tokens = PolicyTokens(logps, old_logps, old_logps, torch.tensor([0, 1]))
        >>> DPPO(log_ratio_penalty=0.0)(tokens, torch.tensor([1.0, 1.0]))
        tensor([-2.,  0.])
    """

    low: float = 0.2
    high: float = 0.2
    log_ratio_penalty: float = 1e-3

    def __post_init__(self) -> None:
        check_positive("low", self.low, "0.2 is usual")
        check_positive("high", self.high, "0.2 is usual")
        check_at_least("log_ratio_penalty", self.log_ratio_penalty, 0)

    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        log_ratio = tokens.policy - tokens.old_policy
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        move = self._move(tokens)
        is_near = torch.where(advantages > 0, move <= self.high, move >= -self.low)
        return -advantages * ratio * is_near + self.log_ratio_penalty * log_ratio.square()

    def clip_mask(self, tokens: PolicyTokens) -> Tensor:
        move = self._move(tokens)
        return (move > self.high) | (move < -self.low)

    def _move(self, tokens: PolicyTokens) -> Tensor:
        """How far the probability of each token has moved, ``[n]``."""
        return (tokens.policy.exp() - tokens.old_policy.exp()).detach()


@hookimpl
def register_objectives(register: Register) -> None:
    register(DPPO)
