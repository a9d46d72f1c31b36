"""The number of questions in a response, as a reward to copy."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text


@dataclass(frozen=True)
class Questions(Reward):
    """The number of question marks in a response, up to a limit.

    Args:
        limit: question marks that count.

    Example:
        >>> Questions(limit=1)([Group("Hello.", ["Hello! How are you? And where?", "Hello."])]).total
        tensor([1., 0.])
    """

    limit: int = 3

    def __call__(self, groups: Sequence[Group]) -> Scores:
        counts = []
        for group in groups:
            for response in group.responses:
                counts.append(min(response_text(response).count("?"), self.limit))
        return Scores(torch.tensor(counts, dtype=torch.float32))


@hookimpl
def register_rewards(register: Register) -> None:
    register(Questions)
