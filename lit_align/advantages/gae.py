"""Generalised advantage estimation (Schulman et al., 2016, https://arxiv.org/abs/1506.02438)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts
from lit_align.checks import check_fraction


@dataclass(frozen=True)
class GAE(Advantage):
    r"""Sum of discounted temporal-difference errors of the critic.

    .. math:: A_t = \sum_{l \ge 0} (\gamma\lambda)^l \delta_{t+l}, \quad \delta_t = r_t + \gamma V_{t+1} - V_t
        \quad \text{(eq. 16)}

    Args:
        gamma: γ: discount of a reward for each token that it is later.
        lam: λ: 0 relies on the critic, 1 on the sampled returns.
        whiten: scale advantages to mean 0 and standard deviation 1 over an iteration.

    Raises:
        ConfigError: unless gamma and lam are between 0 and 1.

    Example:
        One reward at the end, a critic whose value is half of it throughout, no discount.

        >>> rewards, mask = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
        >>> rollouts = Rollouts(rewards, mask, torch.tensor([0]), torch.full((1, 2), 0.5), torch.tensor(0.0))
        >>> GAE(lam=1.0)(rollouts)
        tensor([[0.5000, 0.5000]])
    """

    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = True
    needs_critic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fraction("gamma", self.gamma)
        check_fraction("lam", self.lam)

    def __call__(self, rollouts: Rollouts) -> Tensor:
        rewards, values = rollouts.rewards, rollouts.values
        mask = rollouts.mask.to(rewards)
        next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
        delta = (rewards + self.gamma * next_values - values) * mask
        advantage = torch.zeros_like(rewards[:, 0])
        reversed_advantages = []
        for t in reversed(range(rewards.shape[1])):
            advantage = delta[:, t] + self.gamma * self.lam * advantage
            reversed_advantages.append(advantage)
        return torch.stack(reversed_advantages[::-1], 1) * mask


@hookimpl
def register_advantages(register: Register) -> None:
    register(GAE)
