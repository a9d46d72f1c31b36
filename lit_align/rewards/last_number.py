"""Answers that can be checked (Cobbe et al., 2021, https://arxiv.org/abs/2110.14168)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.errors import DataError
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text

NUMBER = re.compile(r"(?:(?<!\d)-)?\d[\d,]*\.?\d*")  # 9-7 has no -7


@dataclass(frozen=True)
class LastNumber(Reward):
    """1 for a response whose last number is that of the known answer, 0 for another.

    Args:
        column: of the data, where the answer stands.
        after: the answer is what follows this mark in the column; all of it where the mark is missing.

    Raises:
        DataError: at a prompt whose row has no number there.

    Example:
        >>> known = {"answer": "3 + 4 = 7, so there are 1,007 in all. #### 1007"}
        >>> LastNumber()([Group("", ["It is 1,007.", "It is 7."], extra=known)]).total
        tensor([1., 0.])
    """

    column: str = "answer"
    after: str = "####"

    def __call__(self, groups: Sequence[Group]) -> Scores:
        right = []
        for group in groups:
            known = _last(str(group.extra.get(self.column, "")).rpartition(self.after)[2])
            if known is None:
                raise DataError(
                    f"{group.source} has no number in its column {self.column!r}; name another for LastNumber"
                )
            right += [_last(response_text(response)) == known for response in group.responses]
        return Scores(torch.tensor(right).float())


def _last(text: str) -> float | None:
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


@hookimpl
def register_rewards(register: Register) -> None:
    register(LastNumber)
