"""Penalty for repeated n-grams (Yeo et al., 2025, https://arxiv.org/abs/2502.03373, appendix C.2)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lit_align import Register, hookimpl
from lit_align.checks import check_at_least
from lit_align.errors import ConfigError
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_tokens

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase
    from lit_align.models.adapter_set import AdapterSet


@dataclass(frozen=True)
class Repetition(Reward):
    r"""A penalty for saying the same again: the share of n-grams that are repetitions.

    .. math:: r = p\,\Big(1 - \frac{\text{different n-grams}}{\text{n-grams}}\Big)

    n-grams are of the policy's tokens, also of a response that it did not sample, such as a reference answer; and of
    words only where there is no policy.

    Args:
        n: tokens of an n-gram.
        penalty: p: reward of a response that only repeats itself; at most 0.

    Raises:
        ConfigError: if n is under 1, or the penalty over 0.

    Example:
        Of four pairs of words one is new.

        >>> Repetition(n=2)([Group("", ["no no no no no", "one two three", "one"])]).total
        tensor([-0.7500,  0.0000,  0.0000])
    """

    n: int = 3
    penalty: float = -1.0

    def __post_init__(self) -> None:
        check_at_least("n", self.n, 1, "3 is usual")
        if self.penalty > 0:
            raise ConfigError(f"penalty must be at most 0, got {self.penalty}; -1 is usual")

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        self.__dict__["tokenizer"] = tokenizer

    def can_split(self) -> bool:
        return True

    def __call__(self, groups: Sequence[Group]) -> Scores:
        scores = []
        for group in groups:
            for index in range(len(group.responses)):
                tokens = response_tokens(group, index, self.__dict__.get("tokenizer"))
                scores.append(self._score(tokens))
        return Scores(torch.tensor(scores))

    def _score(self, tokens: Sequence[Hashable]) -> float:
        ngrams = [tuple(tokens[i : i + self.n]) for i in range(len(tokens) - self.n + 1)]
        if not ngrams:
            return 0.0
        repeated = len(ngrams) - len(set(ngrams))
        return self.penalty * repeated / len(ngrams) if repeated else 0.0


@hookimpl
def register_rewards(register: Register) -> None:
    register(Repetition)
