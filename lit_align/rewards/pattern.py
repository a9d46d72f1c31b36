"""Rule-based reward: a regular expression matches (DeepSeek-AI, 2025, https://arxiv.org/abs/2501.12948)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text


@dataclass(frozen=True)
class Pattern(Reward):
    """1 for a response in which a regular expression matches, 0 for another.

    Args:
        regex: in Python's syntax; ``(?s)^...$`` for the whole response.

    Raises:
        ValueError: if it is not a valid regular expression.

    Example:
        >>> Pattern(r"^<think>.*</think>")([Group("", ["<think>so</think> Four.", "Four."])]).total
        tensor([1., 0.])
    """

    regex: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.regex)
        except re.error as error:
            raise ValueError(f"regex {self.regex!r} is no regular expression: {error}") from error

    def __call__(self, groups: Sequence[Group]) -> Scores:
        matches = []
        for group in groups:
            for response in group.responses:
                matches.append(re.search(self.regex, response_text(response)) is not None)
        return Scores(torch.tensor(matches).float())


@hookimpl
def register_rewards(register: Register) -> None:
    register(Pattern)
