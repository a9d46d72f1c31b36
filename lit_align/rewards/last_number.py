"""Reward for a correct numeric answer (Cobbe et al., 2021, https://arxiv.org/abs/2110.14168)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.errors import DataError
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import answer_after, column_text, response_text

NUMBER = re.compile(r"(?:(?<!\d)-)?\d[\d,]*\.?\d*")  # 9-7 contains no -7


@dataclass(frozen=True)
class LastNumber(Reward):
    """1 for a response whose last number equals that of the reference answer, 0 for another.

    Args:
        column: of the data, with the reference answer.
        after: the answer is what follows this marker in the column; all of it where the marker is missing or
            empty.

    Raises:
        DataError: at a prompt whose row has no number there.

    Example:
        >>> row = {"answer": "3 + 4 = 7, so there are 1,007 in all. #### 1007"}
        >>> LastNumber()([Group("", ["It is 1,007.", "It is 7."], extra=row)]).total
        tensor([1., 0.])
    """

    column: str = "answer"
    after: str = "####"

    def __call__(self, groups: Sequence[Group]) -> Scores:
        is_correct = []
        for group in groups:
            answer = answer_after(self.after, column_text(group, self.column))
            target = _last_number(answer)
            if target is None:
                raise DataError(
                    f"{group.source} has no number in its column {self.column!r}; name another for LastNumber"
                )
            for response in group.responses:
                is_correct.append(_last_number(response_text(response)) == target)
        return Scores(torch.tensor(is_correct).float())


def _last_number(text: str) -> float | None:
    numbers = NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None


@hookimpl
def register_rewards(register: Register) -> None:
    register(LastNumber)
