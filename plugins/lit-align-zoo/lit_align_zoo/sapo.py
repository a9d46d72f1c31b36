"""Soft Adaptive Policy Optimization (Gao et al., 2025, https://arxiv.org/abs/2511.20347)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import PolicyObjective, PolicyTokens
from lit_align.objectives.ppo import MAX_LOG_RATIO


@dataclass(frozen=True)
class SAPO(PolicyObjective):
    r"""Policy gradient whose weight fades as the ratio leaves 1, in the place of the hard edge of a clip.

    .. math:: -A\,\frac{4}{\tau}\,\sigma\big(\tau (r - 1)\big), \quad
        \tau = \begin{cases} \tau_\text{pos} & A > 0 \\ \tau_\text{neg} & A \le 0 \end{cases}

    Args:
        tau_pos: τ_pos: how fast it fades where the advantage is positive.
        tau_neg: τ_neg: where it is negative.

    Raises:
        ConfigError: unless both are positive.

    Example:
        At r = 1 the loss is -2A / τ, and its slope that of the policy gradient.

        >>> logps = torch.zeros(1, requires_grad=True)
        >>> loss = SAPO()(PolicyTokens(logps, torch.zeros(1), torch.zeros(1), torch.tensor([0])), torch.tensor([3.0]))
        >>> loss.item(), torch.autograd.grad(loss, logps)[0].item()
        (-6.0, -3.0)
    """

    tau_pos: float = 1.0
    tau_neg: float = 1.05

    def __post_init__(self) -> None:
        check_positive("tau_pos", self.tau_pos, "the paper uses 1")
        check_positive("tau_neg", self.tau_neg, "the paper uses 1.05")

    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        log_ratio = (tokens.policy - tokens.old_policy).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        tau = torch.where(advantages > 0, self.tau_pos, self.tau_neg).to(advantages)
        return -advantages * torch.sigmoid(tau * (log_ratio.exp() - 1)) * 4 / tau


@hookimpl
def register_objectives(register: Register) -> None:
    register(SAPO)
