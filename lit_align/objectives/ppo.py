"""Clipped policy gradient (Schulman et al., 2017, https://arxiv.org/abs/1707.06347)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.objectives import PolicyObjective, PolicyTokens

FARTHEST = 20.0  # nats: a ratio beyond is as good as infinite, and its product would not be finite


@dataclass(frozen=True)
class PPO(PolicyObjective):
    r"""Move towards what did better than expected, but no farther than a little from the policy that sampled it.

    .. math:: \max\big(-A\,\rho,\; -A\,\operatorname{clip}(\rho, 1-\varepsilon, 1+\varepsilon_\text{high})\big),
        \quad \rho = \frac{\pi(y_t)}{\pi_\text{old}(y_t)} \quad \text{(eq. 7)}

    Args:
        clip: ε: how far the ratio may fall, where that is an improvement.
        clip_high: how far it may rise; ε if null (Yu et al., 2025, https://arxiv.org/abs/2503.14476, use 0.28).
        dual_clip: c: bound on the loss of a token that did worse, c |A|, over 1; null for none (Ye et al., 2020,
            https://arxiv.org/abs/1912.09729, use 3).
        ratio: of each ``token``, or of the ``sequence``: the geometric mean over the response (Zheng et al., 2025,
            https://arxiv.org/abs/2507.18071).

    Raises:
        ValueError: if a clip is not positive, or dual_clip is not over 1.

    Example:
        Twice as likely and better: held at 1.2. Half as likely and worse: held at 0.8.

        >>> new, old = torch.tensor([0.5, 0.25]).log(), torch.tensor([0.25, 0.5]).log()
        >>> PPO()(PolicyTokens(new, old, old, torch.tensor([0, 1])), torch.tensor([1.0, -1.0]))
        tensor([-1.2000,  0.8000])
    """

    clip: float = 0.2
    clip_high: float | None = None
    dual_clip: float | None = None
    ratio: Literal["token", "sequence"] = "token"

    def __post_init__(self) -> None:
        if not self.clip > 0 or not (self.clip_high is None or self.clip_high > 0):
            raise ValueError(
                f"clip and clip_high must be positive, got {self.clip} and {self.clip_high}"
            )
        if not (self.dual_clip is None or self.dual_clip > 1):
            raise ValueError(f"dual_clip must be over 1, got {self.dual_clip}")

    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        ratio, held = self._ratios(tokens)
        losses = torch.maximum(-advantages * ratio, -advantages * held)
        if self.dual_clip is None:
            return losses
        return torch.where(advantages < 0, losses.minimum(-self.dual_clip * advantages), losses)

    def clipped(self, tokens: PolicyTokens) -> Tensor:
        ratio, held = self._ratios(tokens)
        return ratio != held

    def _ratios(self, tokens: PolicyTokens) -> tuple[Tensor, Tensor]:
        """As they are, and as far as they may go, ``[n]``."""
        moved = tokens.policy - tokens.old_policy
        if self.ratio == "sequence":
            moved = tokens.mean(moved)[tokens.owner]
        ratio = moved.clamp(-FARTHEST, FARTHEST).exp()
        return ratio, ratio.clamp(
            1 - self.clip, 1 + (self.clip if self.clip_high is None else self.clip_high)
        )


@hookimpl
def register_objectives(register: Register) -> None:
    register(PPO)
