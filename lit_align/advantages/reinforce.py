"""REINFORCE with a running mean as baseline (Williams, 1992, https://doi.org/10.1007/BF00992696)."""

from dataclasses import dataclass

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts


@dataclass(frozen=True)
class Reinforce(Advantage):
    r"""Total reward of a response less the mean of earlier iterations, the same for all its tokens.

    .. math:: A_t = R - b

    Args:
        whiten: scale advantages to mean 0 and standard deviation 1 over an iteration.

    Example:
        >>> import torch
        >>> rewards, mask = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
        >>> Reinforce()(Rollouts(rewards, mask, torch.tensor([0]), torch.zeros(1, 2), torch.tensor(0.25)))
        tensor([[0.7500, 0.7500]])
    """

    whiten: bool = False

    def __call__(self, rollouts: Rollouts) -> Tensor:
        return (rollouts.totals - rollouts.baseline)[:, None] * rollouts.mask


@hookimpl
def register_advantages(register: Register) -> None:
    register(Reinforce)
