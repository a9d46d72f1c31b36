"""Comparisons with the votes of three annotators (Wang et al., 2023, https://arxiv.org/abs/2306.05087)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats import Format, Row
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, LabelKind, Message, Pair

VOTES = ("annotator1", "annotator2", "annotator3")
COLUMNS = ("instruction", "input", "response1", "response2", *VOTES)


@dataclass(frozen=True)
class PandaLM(Format):
    """Columns ``instruction``, ``input``, ``response1``, ``response2`` and three votes: 1, 2, or 0 for a tie.

    The response that two of the three prefer is the better one; its probability is their share of the votes that are no
    tie. A row without such a majority is set aside.

    Example:
        >>> votes = dict(zip(VOTES, (2, 2, 1)))
        >>> row = {"instruction": "Name a bird.", "input": "", "response1": "Cat.", "response2": "Owl.", **votes}
        >>> PandaLM()(row).pairs
        (Pair(better=1, worse=0, probability=0.6666666666666666, margin=0.0),)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.PAIRS})

    def recognises(self, row: Row) -> bool:
        return {"instruction", "response1", "response2", *VOTES} <= row.keys()

    def __call__(self, row: Row) -> Group:
        instruction = _text(row, "instruction")
        task_input = "" if row.get("input") is None else _text(row, "input")
        if not (instruction + task_input).strip():
            raise Malformed("empty prompt")
        responses = [_text(row, name) for name in ("response1", "response2")]
        if not all(response.strip() for response in responses):
            raise Malformed("empty response")
        if responses[0] == responses[1]:
            raise Malformed("both responses are the same")
        prompt = f"{instruction}\n{task_input}" if task_input else instruction
        return Group(
            [_message("user", prompt)],
            [[_message("assistant", response)] for response in responses],
            (_majority([_vote(row, name) for name in VOTES]),),
            extra={name: value for name, value in row.items() if name not in COLUMNS},
        )


def _majority(votes: list[int]) -> Pair:
    """The preference of the majority, unless it votes for a tie."""
    first, second = votes.count(1), votes.count(2)
    if max(first, second) < 2:
        raise SetAside("no majority")
    better = int(second > first)
    probability = max(first, second) / (first + second)
    return Pair(better, 1 - better, probability=probability)


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise Malformed(f"'{name}' is not text (got {type(value).__name__})")
    return value


def _vote(row: Row, name: str) -> int:
    value: Any = row[name]
    if isinstance(value, str) and value in {"0", "1", "2"}:  # values of a CSV file are text
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in {0, 1, 2}:
        raise Malformed(f"'{name}' is no vote: 0, 1 or 2")
    return value


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


@hookimpl
def register_formats(register: Register) -> None:
    register(PandaLM)
