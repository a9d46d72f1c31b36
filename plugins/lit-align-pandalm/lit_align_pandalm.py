"""Comparisons with the votes of three annotators (Wang et al., 2023, https://arxiv.org/abs/2306.05087)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats import Format, Row
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, LabelKind, Message, Pair

VOTES = ("annotator1", "annotator2", "annotator3")
READ = ("instruction", "input", "response1", "response2", *VOTES)


@dataclass(frozen=True)
class PandaLM(Format):
    """Columns ``instruction``, ``input``, ``response1``, ``response2`` and three votes: 1, 2, or 0 for a tie.

    The response that two of the three prefer is the better one, with the probability that is their share of the votes
    that are no tie. Without such a majority the row says nothing and is set aside.

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
        instruction, given = (
            _text(row, "instruction"),
            _text(row, "input") if row.get("input") is not None else "",
        )
        if not (instruction + given).strip():
            raise Malformed("empty prompt")
        responses = [_text(row, name) for name in ("response1", "response2")]
        if not all(response.strip() for response in responses):
            raise Malformed("empty response")
        if responses[0] == responses[1]:
            raise Malformed("both responses are the same")
        return Group(
            [{"role": "user", "content": f"{instruction}\n{given}" if given else instruction}],
            [[_answer(response)] for response in responses],
            (_pair([_vote(row, name) for name in VOTES]),),
            extra={name: value for name, value in row.items() if name not in READ},
        )


def _pair(votes: list[int]) -> Pair:
    """What the majority says, if it does not say that they are equal."""
    first, second = votes.count(1), votes.count(2)
    if max(first, second) < 2:
        raise SetAside("no majority")
    better = int(second > first)
    return Pair(better, 1 - better, probability=max(first, second) / (first + second))


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise Malformed(f"'{name}' is not text (got {type(value).__name__})")
    return value


def _vote(row: Row, name: str) -> int:
    value: Any = row[name]
    vote = (
        int(value) if isinstance(value, str) and value in {"0", "1", "2"} else value
    )  # CSV has only text
    if isinstance(vote, bool) or not isinstance(vote, int) or vote not in {0, 1, 2}:
        raise Malformed(f"'{name}' is no vote: 0, 1 or 2")
    return vote


def _answer(content: str) -> Message:
    return {"role": "assistant", "content": content}


@hookimpl
def register_formats(register: Register) -> None:
    register(PandaLM)
