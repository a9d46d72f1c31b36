"""Rewards normalized apart, then added (GDPO, 2026, https://arxiv.org/abs/2601.05242)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.advantages import Advantage, Rollouts
from lit_align.errors import ConfigError


@dataclass(frozen=True)
class GDPO(Advantage):
    r"""Each part of the score in its own deviations within the group, then their weighted sum in those of the batch.

    .. math:: A_t = \frac{S_i - \operatorname{mean} S}{\operatorname{std} S + 10^{-4}}, \quad
        S_i = \sum_k w_k \frac{R_{k,i} - \operatorname{mean}_j R_{k,j}}{\operatorname{std}_j R_{k,j} + 10^{-4}}

    So a reward with large numbers does not drown one with small ones. It reads the parts alone: what shaping or a KL
    penalty in the reward add to the total is refused, and so are scores by token and prompts that are dropped by their
    total. Of `Weighted` neither weights, means nor deviations count, only the weights here.

    Args:
        weights: w of each part, by the name it is logged by after ``rewards/``.

    Raises:
        ConfigError: if no part has a weight, or the reward has no part of that name or left responses out of it.

    Example:
        Both parts tell the two responses apart, in opposite directions; the first counts twice.

        >>> rewards, mask = torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.bool)
        >>> parts = {"Pattern": torch.tensor([1.0, 0.0]), "Length": torch.tensor([-900.0, 0.0])}
        >>> rollouts = Rollouts(rewards, mask, torch.zeros(2).long(), 0 * rewards, torch.tensor(0.0), parts)
        >>> GDPO({"Pattern": 2.0, "Length": 1.0})(rollouts).T
        tensor([[ 0.7070, -0.7070]])
    """

    weights: dict[str, float]
    min_generations: ClassVar[int] = 2
    reads_rewards: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.weights:
            raise ConfigError("weights must name at least one part of the score, as {Pattern: 1.0}")

    @property
    def read_parts(self) -> tuple[str, ...]:
        return tuple(name for name, weight in self.weights.items() if weight)

    def __call__(self, rollouts: Rollouts) -> Tensor:
        total = torch.zeros_like(rollouts.totals)
        for name, weight in self.weights.items():
            if name not in rollouts.parts:
                names = ", ".join(rollouts.parts) or "none"
                raise ConfigError(
                    f"GDPO has a weight for {name!r}, and the parts of the reward are: {names}; name one of these"
                )
            if not weight:
                continue
            if bool(rollouts.parts[name].isnan().any()):
                raise ConfigError(
                    f"GDPO has a weight for {name!r}, which did not score all responses and has weight 0 in Weighted; "
                    "give it another weight there, so that such responses are left out"
                )
            total = total + weight * self._normalized(rollouts, rollouts.parts[name])
        total = (total - total.mean()) / (total.std(correction=min(1, len(total) - 1)) + 1e-4)
        return total[:, None] * rollouts.mask

    @staticmethod
    def _normalized(rollouts: Rollouts, values: Tensor) -> Tensor:
        """Values in deviations from the mean over the responses to the same prompt, ``[responses]``."""
        centred = values - rollouts.prompt_mean(values)
        count = torch.bincount(rollouts.prompt)[rollouts.prompt]
        variance = rollouts.prompt_mean(centred.square()) * count / (count - 1)
        return centred / (variance.sqrt() + 1e-4)


@hookimpl
def register_advantages(register: Register) -> None:
    register(GDPO)
