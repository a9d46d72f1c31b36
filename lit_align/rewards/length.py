"""Length reward: few or many words (Singhal et al., 2023, https://arxiv.org/abs/2310.03716, on length alone)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text


@dataclass(frozen=True)
class Length(Reward):
    r"""Penalty for too many or too few words; by itself a baseline that any reward should beat.

    .. math:: r = -\frac{\max(0,\; |y| - \text{max},\; \text{min} - |y|)}{\text{max}}

    Args:
        max_words: words that a response may have.
        min_words: words that it should have.

    Raises:
        ValueError: unless 0 <= min_words <= max_words, and max_words is at least 1.

    Example:
        Two words too many of four, and exactly four.

        >>> Length(max_words=4)([Group("", ["one two three four five six", "one two three four"])]).total
        tensor([-0.5000,  0.0000])
    """

    max_words: int
    min_words: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_words <= self.max_words or not self.max_words:
            raise ValueError(
                "min_words must be from 0 to max_words, and max_words at least 1, got "
                f"{self.min_words} and {self.max_words}"
            )

    def __call__(self, groups: Sequence[Group]) -> Scores:
        scores = []
        for group in groups:
            for response in group.responses:
                num_words = len(response_text(response).split())
                excess = max(0, num_words - self.max_words, self.min_words - num_words)
                scores.append(-excess / self.max_words if excess else 0.0)
        return Scores(torch.tensor(scores))


@hookimpl
def register_rewards(register: Register) -> None:
    register(Length)
