"""Weighted sum of rewards, each logged separately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lit_align import Register, hookimpl
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import checked_scores

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase
    from lit_align.models.adapter_set import AdapterSet


@dataclass(frozen=True)
class Weighted(Reward):
    r"""A weighted sum of normalised rewards; the logged parts have the names of their classes.

    .. math:: r = \sum_i w_i \frac{r_i - \mu_i}{\sigma_i}

    A response that one of them does not score is not scored.

    Args:
        rewards: to add up.
        weights: of each.
        means: μ of each, measured beforehand so that a score depends on nothing else; 0 if empty.
        deviations: σ of each; 1 if empty.

    Raises:
        ValueError: if there are not as many numbers as rewards, or a deviation is not positive.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> from lit_align.rewards.pattern import Pattern
        >>> both = Weighted([Pattern("owl"), Length(max_words=2)], [1.0, 0.5])
        >>> both([Group("", ["owl", "An owl, a crow."])]).total
        tensor([1.0000, 0.5000])
    """

    rewards: list[Reward]
    weights: list[float]
    means: list[float] | None = None
    deviations: list[float] | None = None

    def __post_init__(self) -> None:
        settings = {
            "weights": self.weights,
            "means": self.means,
            "deviations": self.deviations,
        }
        for name, values in settings.items():
            if values is not None and len(values) != len(self.rewards):
                raise ValueError(
                    f"{name} must be one for each reward, got {len(values)} for {len(self.rewards)}"
                )
        if not self.rewards or not all(deviation > 0 for deviation in self.deviations or ()):
            raise ValueError("rewards must not be empty, and deviations must be positive")

    @property
    def unrewarded(self) -> tuple[str, ...]:
        """Names of the parts that are rewards of weight 0, such as a gold reward: logged, and not learned from."""
        names: dict[str, int] = {}
        for index, reward in enumerate(self.rewards):
            name = type(reward).__name__
            names[f"{name}{index}" if name in names else name] = index
        return tuple(name for name, index in names.items() if self.weights[index] == 0)

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        for reward in self.rewards:
            reward.attach(adapters, tokenizer)

    def trained_prompts(self) -> frozenset[str]:
        weighted = zip(self.rewards, self.weights, strict=True)
        return frozenset().union(
            *(reward.trained_prompts() for reward, weight in weighted if weight)
        )

    def can_split(self) -> bool:
        return all(reward.can_split() for reward in self.rewards)

    def __call__(self, groups: Sequence[Group]) -> Scores:
        total = torch.zeros(())
        parts: dict[str, torch.Tensor] = {}
        token_scores: list[torch.Tensor] = []
        scored: torch.Tensor | None = None
        for index, (reward, weight) in enumerate(zip(self.rewards, self.weights, strict=True)):
            mean = self.means[index] if self.means else 0.0
            deviation = self.deviations[index] if self.deviations else 1.0
            scores = checked_scores(reward, groups, may_abstain=True, reads_tokens=True)
            if scores.scored is not None:
                is_scored = scores.scored.cpu()
                scored = is_scored if scored is None else scored & is_scored
            _add_part(parts, type(reward).__name__, scores.total, index)
            for name, values in scores.parts.items():
                _add_part(parts, name, values, index)
            total = total + weight * (scores.total.cpu() - mean) / deviation
            if scores.tokens is not None:
                token_scores.append(weight * scores.tokens.cpu() / deviation)
        tokens = torch.stack(token_scores).sum(0) if token_scores else None
        return Scores(total, parts, tokens, scored)


def _add_part(parts: dict[str, torch.Tensor], name: str, values: torch.Tensor, index: int) -> None:
    """Add a part for the log; the index of the reward makes a repeated name unique."""
    parts[f"{name}{index}" if name in parts else name] = values


@hookimpl
def register_rewards(register: Register) -> None:
    register(Weighted)
