"""Variational sequence-level soft weights (VESPO, 2026, https://arxiv.org/abs/2602.10693)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.functional.logps import sum_by_response
from lit_align.objectives import PolicyObjective, PolicyTokens
from lit_align.objectives.ppo import MAX_LOG_RATIO

MIN_LOG_WEIGHT = math.log(1e-8)


@dataclass(frozen=True)
class VESPO(PolicyObjective):
    r"""Policy gradient weighted by a smooth function of the response's whole ratio, which is 1 where nothing moved.

    .. math:: -\operatorname{sg}\big(w^k e^{\lambda (1 - w)}\big)\,A\,\log\pi_\theta(y_t), \quad
        w = \prod_t \frac{\pi_\theta(y_t)}{\pi_\text{old}(y_t)}

    Args:
        k_pos: k where the advantage is at least 0.
        lambda_pos: λ there.
        k_neg: k where it is negative.
        lambda_neg: λ there.

    Raises:
        ConfigError: if one is not positive.

    Example:
        The response is twice as probable as before: the weight is 4 exp(-3), and log π is -2.

        >>> logps, old_logps = torch.tensor([-2.0]), torch.tensor([-2.0 - math.log(2)])
        >>> VESPO()(PolicyTokens(logps, old_logps, old_logps, torch.tensor([0])), torch.ones(1))
        tensor([0.3983])
    """

    k_pos: float = 2.0
    lambda_pos: float = 3.0
    k_neg: float = 3.0
    lambda_neg: float = 2.0
    has_stop_gradient_weight: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("k_pos", "lambda_pos", "k_neg", "lambda_neg"):
            check_positive(name, getattr(self, name), "2 and 3 are usual")

    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        log_ratio = (tokens.policy - tokens.old_policy).detach()
        bounded = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        of_response = sum_by_response(bounded, tokens.owner, int(tokens.owner.max()) + 1)
        log_weight = of_response.clamp(MIN_LOG_WEIGHT, MAX_LOG_RATIO)[tokens.owner]
        k = torch.where(advantages >= 0, self.k_pos, self.k_neg)
        lam = torch.where(advantages >= 0, self.lambda_pos, self.lambda_neg)
        weight = (k * log_weight + lam * (1 - log_weight.exp())).exp()
        return -weight * advantages * tokens.policy


@hookimpl
def register_objectives(register: Register) -> None:
    register(VESPO)
