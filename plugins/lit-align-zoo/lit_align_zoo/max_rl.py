"""Maximum likelihood of success (MaxRL, 2026, https://arxiv.org/abs/2602.02710)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts
from lit_align.errors import ConfigError


@dataclass(frozen=True)
class MaxRL(Advantage):
    r"""Total reward of a response relative to the mean of its prompt's responses: rare successes weigh most.

    .. math:: A_t = \frac{R_i - m}{m}, \quad m = \operatorname{mean}_j R_j, \quad A_t = 0 \text{ where } m = 0

    Raises:
        ConfigError: at a total reward below 0, of which the mean is no rate of success.

    Example:
        One success in four: 3, and -1 for each failure.

        >>> import torch
        >>> rewards, mask = torch.tensor([[1.0], [0.0], [0.0], [0.0]]), torch.ones(4, 1, dtype=torch.bool)
        >>> MaxRL()(Rollouts(rewards, mask, torch.zeros(4).long(), torch.zeros(4, 1), torch.tensor(0.0))).T
        tensor([[ 3., -1., -1., -1.]])
    """

    min_generations: ClassVar[int] = 2

    def __call__(self, rollouts: Rollouts) -> Tensor:
        totals = rollouts.totals
        if bool((totals < 0).any()):
            raise ConfigError(
                f"MaxRL needs rewards of at least 0, got {totals.min():.3f}; set kl.where to loss, and use a reward "
                "that is a success or none"
            )
        mean = rollouts.prompt_mean(totals)
        advantages = (totals - mean) / mean.where(mean > 0, 1.0)
        return advantages[:, None] * rollouts.mask


@hookimpl
def register_advantages(register: Register) -> None:
    register(MaxRL)
