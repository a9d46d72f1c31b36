"""REINFORCE++ with a baseline (Hu, 2025, https://arxiv.org/abs/2501.03262)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts


@dataclass(frozen=True)
class ReinforcePlusPlus(Advantage):
    r"""Total reward of a response less the mean of its prompt's responses, then whitened over all tokens.

    .. math:: A_t = \frac{A'_i - \operatorname{mean}_t A'}{\operatorname{std}_t A'}, \quad
        A'_i = R_i - \operatorname{mean}_j R_j

    Args:
        whiten: scale advantages to mean 0 and standard deviation 1 over an iteration's tokens.

    Example:
        The rewards 3 of one token and 1 of two tokens have the mean 2:

        >>> import torch
        >>> rewards, mask = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[True, False], [True, True]])
        >>> rollouts = Rollouts(rewards, mask, torch.zeros(2).long(), torch.zeros(2, 2), torch.tensor(0.0))
        >>> centred = ReinforcePlusPlus()(rollouts)
        >>> centred
        tensor([[ 1.,  0.],
                [-1., -1.]])

        The stage then whitens: the tokens 1, -1 and -1 have the mean -1/3 and the variance (16 + 4 + 4) / 9 / 2 = 4/3,
        which makes of them 2/√3 and twice -1/√3.

        >>> from lit_align.advantages import masked_whiten
        >>> masked_whiten(centred, mask)
        tensor([[ 1.1547,  0.0000],
                [-0.5774, -0.5774]])
    """

    whiten: bool = True
    min_generations: ClassVar[int] = 2

    def __call__(self, rollouts: Rollouts) -> Tensor:
        centred = rollouts.totals - rollouts.prompt_mean(rollouts.totals)
        return centred[:, None] * rollouts.mask


@hookimpl
def register_advantages(register: Register) -> None:
    register(ReinforcePlusPlus)
