"""Reward by correctness and length (Yeo et al., 2025, https://arxiv.org/abs/2502.03373, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.plugin_wrapping import Wrapping
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import checked_scores, response_tokens

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase
    from lit_align.models.adapter_set import AdapterSet


@dataclass(frozen=True)
class CosineLength(Reward):
    r"""Another reward's verdict, right or wrong, on a cosine of the length: short if right, long if wrong.

    .. math:: r = b + \tfrac{1}{2}(a - b)\Big(1 + \cos\big(\pi \min(l / L, 1)\big)\Big)

    a is the score of an empty response and b that of one of L tokens. Length is counted in tokens of the policy, also
    of a response that it did not sample, such as a reference answer; in words only where there is no policy.

    Args:
        reward: says whether a response is right: a score over ``threshold``.
        max_length: L.
        right: a and b of a right response.
        wrong: a and b of a wrong one, which loses less the longer it has tried.
        threshold: scores above it are right.

    Raises:
        ConfigError: if max_length is not positive.

    Example:
        Half as long as the limit: between the two.

        >>> from lit_align.rewards.pattern import Pattern
        >>> reward = CosineLength(Pattern("owl"), max_length=4)
        >>> reward([Group("", ["an owl", "a bat", ""])]).total
        tensor([ 0.7500, -0.7500, -1.0000])
    """

    reward: Reward
    max_length: int
    right: tuple[float, float] = (1.0, 0.5)
    wrong: tuple[float, float] = (-1.0, -0.5)
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_positive("max_length", self.max_length, "max_new_tokens is usual")

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        super().attach(adapters, tokenizer)
        self.__dict__["tokenizer"] = tokenizer

    def wrapped(self) -> Sequence[Wrapping]:
        return (self.reward,)

    def __call__(self, groups: Sequence[Group]) -> Scores:
        verdicts = checked_scores(self.reward, groups, may_abstain=True)
        is_right = (verdicts.total.cpu() > self.threshold).tolist()
        lengths: list[int] = []
        for group in groups:
            for index in range(len(group.responses)):
                lengths.append(len(response_tokens(group, index, self.__dict__.get("tokenizer"))))
        scores = []
        for right, length in zip(is_right, lengths, strict=True):
            short, long = self.right if right else self.wrong
            cosine = math.cos(math.pi * min(length / self.max_length, 1.0))
            scores.append(long + 0.5 * (short - long) * (1 + cosine))
        parts = {type(self.reward).__name__: verdicts.total}
        return Scores(torch.tensor(scores), parts, scored=verdicts.scored)


@hookimpl
def register_rewards(register: Register) -> None:
    register(CosineLength)
