"""Baseline of least variance (Hao et al., 2025, https://arxiv.org/abs/2505.23585)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts


@dataclass(frozen=True)
class OPO(Advantage):
    r"""Total reward of a response less the mean of its prompt's responses, weighted by their length.

    .. math:: A_t = R_i - \frac{\sum_j l_j R_j}{\sum_j l_j} \quad \text{(eq. 8, gradients as long as responses)}

    Example:
        Lengths 1 and 3 with total rewards 4 and 0: the baseline is 1.

        >>> import torch
        >>> rewards = torch.tensor([[4.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> mask = torch.tensor([[True, False, False], [True, True, True]])
        >>> OPO()(Rollouts(rewards, mask, torch.tensor([0, 0]), torch.zeros(2, 3), torch.tensor(0.0)))
        tensor([[ 3.,  0.,  0.],
                [-1., -1., -1.]])
    """

    min_generations: ClassVar[int] = 2

    def __call__(self, rollouts: Rollouts) -> Tensor:
        length = rollouts.mask.sum(1).to(rollouts.rewards)
        weighted_totals = rollouts.prompt_mean(length * rollouts.totals)
        baseline = weighted_totals / rollouts.prompt_mean(length)
        return (rollouts.totals - baseline)[:, None] * rollouts.mask


@hookimpl
def register_advantages(register: Register) -> None:
    register(OPO)
