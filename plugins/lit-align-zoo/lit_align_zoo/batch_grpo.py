"""Group-centred rewards in deviations of the whole batch (Lite PPO: Liu et al., 2025, https://arxiv.org/abs/2508.08221)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts


@dataclass(frozen=True)
class BatchGRPO(Advantage):
    r"""Total reward of a response less the mean of its prompt's responses, in standard deviations of all rewards.

    .. math:: A_t = \frac{R_i - \operatorname{mean}_j R_j}{\operatorname{std}_\text{batch} R + 10^{-4}}

    Within a group of nearly equal rewards a small difference stays small, unlike under `GRPO`.

    Example:
        The rewards 0, 2, 4, 6 deviate by the root of 20 / 3.

        >>> import torch
        >>> rewards, mask = torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.ones(4, 1, dtype=torch.bool)
        >>> prompt = torch.tensor([0, 0, 1, 1])
        >>> BatchGRPO()(Rollouts(rewards, mask, prompt, torch.zeros(4, 1), torch.tensor(0.0))).T
        tensor([[-0.3873,  0.3873, -0.3873,  0.3873]])
    """

    min_generations: ClassVar[int] = 2

    def __call__(self, rollouts: Rollouts) -> Tensor:
        totals = rollouts.totals
        centred = totals - rollouts.prompt_mean(totals)
        return (centred / (totals.std() + 1e-4))[:, None] * rollouts.mask


@hookimpl
def register_advantages(register: Register) -> None:
    register(BatchGRPO)
