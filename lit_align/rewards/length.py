"""Few or many words (Singhal et al., 2023, https://arxiv.org/abs/2310.03716, on how much of a reward that can be)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text


@dataclass(frozen=True)
class Length(Reward):
    r"""How near a response comes to a number of words; by itself a baseline that any reward should beat.

    .. math:: r = -\frac{\max(0,\; |y| - \text{most},\; \text{least} - |y|)}{\text{most}}

    Args:
        max_words: words that a response may have.
        min_words: words that it should have.

    Raises:
        ValueError: unless 0 <= least <= most, and most is at least 1.

    Example:
        Two words too many of four, and as many as there may be.

        >>> Length(max_words=4)([Group("", ["one two three four five six", "one two three four"])]).total
        tensor([-0.5000,  0.0000])
    """

    max_words: int
    min_words: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_words <= self.max_words or not self.max_words:
            raise ValueError(
                f"least must be from 0 to most, and most at least 1, got {self.min_words} and {self.max_words}"
            )

    def __call__(self, groups: Sequence[Group]) -> Scores:
        words = [
            len(response_text(response).split()) for group in groups for response in group.responses
        ]
        off = [max(0, n - self.max_words, self.min_words - n) / self.max_words for n in words]
        return Scores(torch.tensor([-x if x else 0.0 for x in off]))


@hookimpl
def register_rewards(register: Register) -> None:
    register(Length)
