"""Generalised advantage estimation (Schulman et al., 2016, https://arxiv.org/abs/1506.02438)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts


@dataclass(frozen=True)
class GAE(Advantage):
    r"""What a token turned out to be worth against what the critic expected, the future discounted by λ.

    .. math:: A_t = \sum_{l \ge 0} (\gamma\lambda)^l \delta_{t+l}, \quad \delta_t = r_t + \gamma V_{t+1} - V_t
        \quad \text{(eq. 16)}

    Args:
        gamma: γ: what a reward loses with each token that it is late.
        lam: λ: 0 trusts the critic, 1 trusts the samples.
        whiten: bring advantages to mean 0 and deviation 1 over an iteration.

    Raises:
        ValueError: unless gamma and lam are from 0 to 1.

    Example:
        One reward at the end, a critic that expects half of it throughout, no discount.

        >>> rewards, there = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
        >>> rollouts = Rollouts(rewards, there, torch.tensor([0]), torch.full((1, 2), 0.5), torch.tensor(0.0))
        >>> GAE(lam=1.0)(rollouts)
        tensor([[0.5000, 0.5000]])
    """

    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = True
    needs_critic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (0 <= self.gamma <= 1 and 0 <= self.lam <= 1):
            raise ValueError(f"gamma and lam must be from 0 to 1, got {self.gamma} and {self.lam}")

    def __call__(self, rollouts: Rollouts) -> Tensor:
        rewards, mask, values = (
            rollouts.rewards,
            rollouts.mask.to(rollouts.rewards),
            rollouts.values,
        )
        after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
        delta = (rewards + self.gamma * after - values) * mask
        summed, found = torch.zeros_like(rewards[:, 0]), []
        for t in reversed(range(rewards.shape[1])):
            summed = delta[:, t] + self.gamma * self.lam * summed
            found.append(summed)
        return torch.stack(found[::-1], 1) * mask


@hookimpl
def register_advantages(register: Register) -> None:
    register(GAE)
