"""Weighted sum of rewards, each logged separately."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.plugin_wrapping import Wrapping
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import checked_scores


@dataclass(frozen=True)
class Weighted(Reward):
    r"""A weighted sum of normalised rewards; the logged parts have the names of their classes.

    .. math:: r = \sum_i w_i \frac{r_i - \mu_i}{\sigma_i}

    A response that one of them does not score is not scored. A reward of weight 0, such as a gold reward, is only
    logged: a response that it does not score keeps its score, and has no number (nan) in that part.

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
        named = zip(self._names(), self.weights, strict=True)
        return tuple(name for name, weight in named if weight == 0)

    @property
    def scales(self) -> list[float]:
        """By what each reward is multiplied: its weight divided by its deviation."""
        deviations = self.deviations or [1.0] * len(self.rewards)
        return [w / sigma for w, sigma in zip(self.weights, deviations, strict=True)]

    def _names(self) -> list[str]:
        """Of each reward in the log, before any part that a reward has itself."""
        names: list[str] = []
        for index, reward in enumerate(self.rewards):
            names.append(_free_name(type(reward).__name__, index, names))
        return names

    def wrapped(self) -> Sequence[Wrapping]:
        return self.rewards

    def decided_by(self) -> Sequence[Wrapping]:
        """A reward of weight 0 is only logged."""
        weighted = zip(self.rewards, self.weights, strict=True)
        return [reward for reward, weight in weighted if weight]

    def __call__(self, groups: Sequence[Group]) -> Scores:
        total = torch.zeros(())
        names = self._names()
        parts: dict[str, torch.Tensor] = {}
        token_scores: list[torch.Tensor] = []
        scored: torch.Tensor | None = None
        for index, (reward, weight) in enumerate(zip(self.rewards, self.weights, strict=True)):
            mean = self.means[index] if self.means else 0.0
            deviation = self.deviations[index] if self.deviations else 1.0
            scores = checked_scores(reward, groups, may_abstain=True, reads_tokens=True)
            if scores.scored is not None and weight:
                is_scored = scores.scored.cpu()
                scored = is_scored if scored is None else scored & is_scored
            parts[names[index]] = _known(scores.total, scores, weight)
            for name, values in scores.parts.items():
                free = _free_name(name, index, [*names, *parts])
                parts[free] = _known(values, scores, weight)
            total = total + weight * (scores.total.cpu() - mean) / deviation
            if scores.tokens is not None:
                token_scores.append(weight * scores.tokens.cpu() / deviation)
        tokens = torch.stack(token_scores).sum(0) if token_scores else None
        return Scores(total, parts, tokens, scored)


def _free_name(name: str, index: int, taken: Collection[str]) -> str:
    """A name for the log; the index of the reward makes a repeated one unique."""
    while name in taken:
        name = f"{name}{index}"
    return name


def _known(values: torch.Tensor, scores: Scores, weight: float) -> torch.Tensor:
    """A part of a reward; nan where the reward did not score and the response keeps its score all the same."""
    if scores.scored is None or weight:
        return values
    return values.where(scores.scored.to(values.device), math.nan)


@hookimpl
def register_rewards(register: Register) -> None:
    register(Weighted)
