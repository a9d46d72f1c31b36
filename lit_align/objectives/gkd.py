"""Generalised knowledge distillation on sampled responses (Agarwal et al., 2024, https://arxiv.org/abs/2306.13649)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_fraction, check_positive
from lit_align.errors import ConfigError
from lit_align.objectives import DivergenceFrom, PolicyObjective, PolicyTokens
from lit_align.objectives.ppo import MAX_LOG_RATIO


@dataclass(frozen=True)
class GKD(PolicyObjective):
    r"""Pull the policy's whole distribution at each sampled token to a teacher's; the reward holds the `Teacher`.

    .. math:: w\,\min\!\Big(\tfrac{\pi_\theta(y_t)}{\pi_\text{old}(y_t)}, c\Big)\,
        D_\beta\big(T(\cdot \mid x', y_{<t}) \,\|\, \pi_\theta(\cdot \mid x, y_{<t})\big) + (1 - w)\,\ell_t

    with the generalised Jensen-Shannon divergence of `lit_align.functional.divergence`, whose β = 0 is the forward and
    β = 1 the reverse KL divergence. The ratio is a weight without gradient (SDFT: https://arxiv.org/abs/2601.19897); it
    is 1 in the first update of a batch. The advantage is read by ℓ alone.

    Args:
        beta: β, from 0 to 1; self-distillation from demonstrations (SDFT) has 0.5, from solutions (SDPO) 1.
        cap: c: the largest weight of a token that has become more probable.
        task: ℓ: a loss over advantages beside it; null for none.
        weight: w: of the divergence; 1 without ``task``.

    Raises:
        ConfigError: if beta or weight is not between 0 and 1, cap is not positive, or weight and task contradict each
            other.

    Example:
        Four times as probable as before: the weight is 2.

        >>> logps, old_logps = torch.tensor([0.8]).log(), torch.tensor([0.2]).log()
        >>> tokens = PolicyTokens(logps, old_logps, old_logps, torch.tensor([0]), divergence=torch.tensor([0.3]))
        >>> GKD()(tokens, torch.tensor([0.0]))
        tensor([0.6000])
    """

    beta: float = 0.5
    cap: float = 2.0
    task: PolicyObjective | None = None
    weight: float = 1.0
    has_stop_gradient_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fraction("beta", self.beta)
        check_positive("cap", self.cap, "2 is usual")
        check_fraction("weight", self.weight)
        if (self.task is None) != (self.weight == 1):
            raise ConfigError(
                f"weight is {self.weight} and task {self.task}; set weight to 1 without a task, and below 1 with one"
            )

    @property
    def divergence_from(self) -> DivergenceFrom:
        return DivergenceFrom("teacher", self.beta)

    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        assert tokens.divergence is not None
        log_ratio = (tokens.policy - tokens.old_policy).detach()
        ratio = torch.exp(log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)).clamp(max=self.cap)
        losses = self.weight * ratio * tokens.divergence
        if self.task is not None:
            losses = losses + (1 - self.weight) * self.task(tokens, advantages)
        return losses

    def clip_mask(self, tokens: PolicyTokens) -> Tensor:
        if self.task is not None:
            return self.task.clip_mask(tokens)
        log_ratio = tokens.policy.detach() - tokens.old_policy
        return log_ratio.exp() > self.cap


@hookimpl
def register_objectives(register: Register) -> None:
    register(GKD)
