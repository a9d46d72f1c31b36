"""Reverse KL divergence from a teacher, token by token (Lu, 2025, https://thinkingmachines.ai/blog/on-policy-distillation)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts
from lit_align.checks import check_fraction


@dataclass(frozen=True)
class ReverseKL(Advantage):
    r"""How much more probable the teacher finds each token than the policy did; the reward is a `Teacher`.

    .. math:: A_t = \sum_{s \ge t} \gamma^{s-t} \big(r_s - \log\pi_\text{old}(y_s)\big), \quad r_s = \log T(y_s)

    With the loss of `PolicyGradient` and γ = 0 its mean gradient is that of
    :math:`\operatorname{KL}(\pi_\theta \,\|\, T)` at each token, on the policy's own samples. In a `Weighted`
    reward the weights of teachers, each divided by its deviation, add up to 1; ``whiten_rewards`` is refused.

    The policy's log-probability is that of the policy that sampled, through all updates of a batch, as in the source.
    TRL's loss of sampled tokens (SDFT, SDPO) has that of the policy that learns: both agree in the first update of a
    batch only; later theirs also pulls back by :math:`\log\pi_\theta - \log\pi_\text{old}` to what sampled.

    Args:
        discount: γ: of what a token leads to later; 0 counts the token alone.

    Raises:
        ConfigError: unless discount is between 0 and 1.

    Example:
        The teacher gives 0.8 and 0.5 where the policy gave 0.4 and 0.5: log 2 and 0.

        >>> teacher, policy = torch.tensor([[0.8, 0.5]]).log(), torch.tensor([[0.4, 0.5]]).log()
        >>> mask = torch.ones(1, 2, dtype=torch.bool)
        >>> rollouts = Rollouts(teacher, mask, torch.tensor([0]), 0 * teacher, torch.tensor(0.0), old_logps=policy)
        >>> ReverseKL()(rollouts)
        tensor([[0.6931, 0.0000]])
    """

    discount: float = 0.0
    needs_policy: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fraction("discount", self.discount)

    def __call__(self, rollouts: Rollouts) -> Tensor:
        assert rollouts.old_logps is not None
        gains = (rollouts.rewards - rollouts.old_logps) * rollouts.mask
        if not self.discount:
            return gains
        later, summed = torch.zeros_like(gains[:, 0]), []
        for column in reversed(gains.unbind(1)):
            later = column + self.discount * later
            summed.append(later)
        return torch.stack(summed[::-1], 1) * rollouts.mask


@hookimpl
def register_advantages(register: Register) -> None:
    register(ReverseKL)
