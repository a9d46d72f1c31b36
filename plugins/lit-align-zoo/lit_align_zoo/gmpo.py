"""Geometric-Mean Policy Optimization (Zhao et al., 2025, https://arxiv.org/abs/2507.20673)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import PolicyObjective, PolicyTokens


@dataclass(frozen=True)
class GMPO(PolicyObjective):
    r"""Policy gradient on the geometric mean of a response's ratios, each clipped in nats on the side of improvement.

    .. math:: -A \exp\Big(\frac{1}{l}\sum_t \operatorname{clip}_A\big(\log r_t\big)\Big), \quad
        \operatorname{clip}_A(x) = \begin{cases} \min(x, \varepsilon) & A > 0 \\ \max(x, -\varepsilon) & A \le 0
        \end{cases}

    Every token has the loss of its response: use it with ``loss_aggregation: sequence``.

    Args:
        clip: ε: nats by which a token's log-probability may move.

    Raises:
        ConfigError: if clip is not positive.

    Example:
        Two tokens of one response, up by 1 and by 0.2 nats, of which 0.4 and 0.2 count: exp(0.3).

        >>> logps, old_logps = torch.tensor([0.0, -1.0]), torch.tensor([-1.0, -1.2])
        >>> GMPO()(PolicyTokens(logps, old_logps, old_logps, torch.tensor([0, 0])), torch.ones(2))
        tensor([-1.3499, -1.3499])
    """

    clip: float = 0.4

    def __post_init__(self) -> None:
        check_positive("clip", self.clip, "the paper uses 0.4")

    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        log_ratio = tokens.policy - tokens.old_policy
        bounded = torch.where(
            advantages > 0, log_ratio.clamp(max=self.clip), log_ratio.clamp(min=-self.clip)
        )
        return -advantages * tokens.mean(bounded).clamp(max=20.0).exp()[tokens.owner]

    def clip_mask(self, tokens: PolicyTokens) -> Tensor:
        return (tokens.policy - tokens.old_policy).abs() > self.clip


@hookimpl
def register_objectives(register: Register) -> None:
    register(GMPO)
