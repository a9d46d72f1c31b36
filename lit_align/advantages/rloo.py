"""Leave-one-out baseline (Ahmadian et al., 2024, https://arxiv.org/abs/2402.14740)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts


@dataclass(frozen=True)
class RLOO(Advantage):
    r"""Total reward of a response less the mean of the other responses to its prompt.

    .. math:: A_t = R_i - \frac{1}{K-1}\sum_{j \ne i} R_j \quad \text{(eq. 9)}

    Args:
        whiten: scale advantages to mean 0 and standard deviation 1 over an iteration.

    Example:
        >>> rewards, mask = torch.tensor([[3.0], [1.0], [2.0]]), torch.ones(3, 1, dtype=torch.bool)
        >>> RLOO()(Rollouts(rewards, mask, torch.tensor([0, 0, 0]), torch.zeros(3, 1), torch.tensor(0.0))).T
        tensor([[ 1.5000, -1.5000,  0.0000]])
    """

    whiten: bool = False
    min_generations: ClassVar[int] = 2

    def __call__(self, rollouts: Rollouts) -> Tensor:
        count = torch.bincount(rollouts.prompt)[rollouts.prompt]
        centred = rollouts.totals - rollouts.prompt_mean(rollouts.totals)
        return (centred * count / (count - 1))[:, None] * rollouts.mask


@hookimpl
def register_advantages(register: Register) -> None:
    register(RLOO)
