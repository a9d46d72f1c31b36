"""Several rewards at once, each logged apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lit_align import Register, hookimpl
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import checked_scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet


@dataclass(frozen=True)
class Weighted(Reward):
    r"""A sum of rewards; the parts are called after their classes.

    .. math:: r = \sum_i w_i \frac{r_i - \mu_i}{\sigma_i}

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
        for name, given in {
            "weights": self.weights,
            "means": self.means,
            "deviations": self.deviations,
        }.items():
            if given is not None and len(given) != len(self.rewards):
                raise ValueError(
                    f"{name} must be one for each reward, got {len(given)} for {len(self.rewards)}"
                )
        if not self.rewards or not all(one > 0 for one in self.deviations or ()):
            raise ValueError("rewards must not be empty, and deviations must be positive")

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        for reward in self.rewards:
            reward.attach(adapters, tokenizer)

    def __call__(self, groups: Sequence[Group]) -> Scores:
        means, deviations = (
            self.means or [0.0] * len(self.rewards),
            self.deviations or [1.0] * len(self.rewards),
        )
        total, parts, tokens = torch.zeros(()), dict[str, torch.Tensor](), list[torch.Tensor]()
        for k, (reward, weight) in enumerate(zip(self.rewards, self.weights, strict=True)):
            scores, name = checked_scores(reward, groups), type(reward).__name__
            parts[name if name not in parts else f"{name}{k}"] = scores.total
            parts |= {
                f"{part}{k}" if part in parts else part: values
                for part, values in scores.parts.items()
            }
            total = total + weight * (scores.total.cpu() - means[k]) / deviations[k]
            tokens += (
                [] if scores.tokens is None else [weight * scores.tokens.cpu() / deviations[k]]
            )
        return Scores(total, parts, torch.stack(tokens).sum(0) if tokens else None)


@hookimpl
def register_rewards(register: Register) -> None:
    register(Weighted)
