"""Rewards normalized within the group of responses to a prompt (Shao et al., 2024, https://arxiv.org/abs/2402.03300)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts


@dataclass(frozen=True)
class GRPO(Advantage):
    r"""Total reward of a response less the mean of its prompt's responses, in their standard deviations.

    .. math:: A_t = \frac{R_i - \operatorname{mean}_j R_j}{\operatorname{std}_j R_j} \quad \text{(section 4.1.2)}

    Args:
        std: divide by the standard deviation, which favours prompts that are too easy or too hard (Dr. GRPO: Liu et
            al., 2025, https://arxiv.org/abs/2503.20783).

    Example:
        >>> rewards, mask = torch.tensor([[3.0], [1.0]]), torch.ones(2, 1, dtype=torch.bool)
        >>> GRPO()(Rollouts(rewards, mask, torch.tensor([0, 0]), torch.zeros(2, 1), torch.tensor(0.0))).T
        tensor([[ 0.7071, -0.7071]])
    """

    std: bool = True
    min_generations: ClassVar[int] = 2

    def __call__(self, rollouts: Rollouts) -> Tensor:
        centred = rollouts.totals - rollouts.prompt_mean(rollouts.totals)
        if self.std:
            count = torch.bincount(rollouts.prompt)[rollouts.prompt]
            variance = rollouts.prompt_mean(centred.square()) * count / (count - 1)
            centred = centred / (variance.sqrt() + 1e-6)
        return centred[:, None] * rollouts.mask


@hookimpl
def register_advantages(register: Register) -> None:
    register(GRPO)
