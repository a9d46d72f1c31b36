"""Clipped policy gradient (Schulman et al., 2017, https://arxiv.org/abs/1707.06347)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.errors import ConfigError
from lit_align.objectives import PolicyObjective, PolicyTokens

MAX_LOG_RATIO = 20.0  # nats; beyond it the product of ratio and advantage would overflow


@dataclass(frozen=True)
class PPO(PolicyObjective):
    r"""Policy gradient on importance ratios that are clipped to stay near the policy that sampled.

    .. math:: \max\big(-A\,r,\; -A\,\operatorname{clip}(r, 1-\varepsilon, 1+\varepsilon_\text{high})\big),
        \quad r = \frac{\pi_\theta(y_t)}{\pi_\text{old}(y_t)} \quad \text{(eq. 7)}

    Args:
        clip: ε: how far the ratio may fall, where that is an improvement.
        clip_high: how far it may rise; ε if null (Yu et al., 2025, https://arxiv.org/abs/2503.14476, use 0.28).
        dual_clip: c: bound on the loss of a token with a negative advantage, c |A|, over 1; null for none (Ye et al.,
            2020, https://arxiv.org/abs/1912.09729, use 3).
        ratio: of each ``token``, or of the ``sequence``: the geometric mean over the response (Zheng et al., 2025,
            https://arxiv.org/abs/2507.18071).

    Raises:
        ConfigError: if a clip is not positive, or dual_clip is not over 1.

    Example:
        Twice as probable with a positive advantage: clipped at 1.2. Half as probable with a negative one: at 0.8.

        >>> logps, old_logps = torch.tensor([0.5, 0.25]).log(), torch.tensor([0.25, 0.5]).log()
        >>> tokens = PolicyTokens(logps, old_logps, old_logps, torch.tensor([0, 1]))
        >>> PPO()(tokens, torch.tensor([1.0, -1.0]))
        tensor([-1.2000,  0.8000])
    """

    clip: float = 0.2
    clip_high: float | None = None
    dual_clip: float | None = None
    ratio: Literal["token", "sequence"] = "token"

    def __post_init__(self) -> None:
        check_positive("clip", self.clip, "the paper uses 0.2")
        if self.clip_high is not None:
            check_positive("clip_high", self.clip_high, "leave it out to use clip")
        if not (self.dual_clip is None or self.dual_clip > 1):
            raise ConfigError(f"dual_clip must be over 1, got {self.dual_clip}; 3 is usual")

    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        ratio, clipped_ratio = self._ratios(tokens)
        losses = torch.maximum(-advantages * ratio, -advantages * clipped_ratio)
        if self.dual_clip is None:
            return losses
        return torch.where(advantages < 0, losses.minimum(-self.dual_clip * advantages), losses)

    def clip_mask(self, tokens: PolicyTokens) -> Tensor:
        ratio, clipped_ratio = self._ratios(tokens)
        return ratio != clipped_ratio

    def _ratios(self, tokens: PolicyTokens) -> tuple[Tensor, Tensor]:
        """Importance ratio of each token before and after clipping, ``[n]``."""
        log_ratio = tokens.policy - tokens.old_policy
        if self.ratio == "sequence":
            log_ratio = tokens.mean(log_ratio)[tokens.owner]
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        clip_high = self.clip if self.clip_high is None else self.clip_high
        return ratio, ratio.clamp(1 - self.clip, 1 + clip_high)


@hookimpl
def register_objectives(register: Register) -> None:
    register(PPO)
