"""Prompts without a response, for sampling; the other columns are for the reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    check_prompt,
    other_fields,
    text_field,
    text_or_messages,
)
from lit_align.types import Group, LabelKind

RESPONSE_COLUMNS = {
    "completion",
    "response",
    "responses",
    "response_0",
    "response_1",
    "response1",
    "response2",
    "response_a",
    "response_b",
    "chosen",
    "rejected",
    "output",
    "messages",
    "conversations",
}


@dataclass(frozen=True)
class Questions(Format):
    """Column ``prompt``, text or messages, or ``question``, a user's turn; no response, other columns go to rewards.

    Example:
        >>> Questions()({"question": "2 + 2?", "answer": "4"}).extra
        {'answer': '4'}
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.PROMPTS})

    def recognises(self, row: Row) -> bool:
        """``prompt`` or ``question``, and no column that is a response in another format."""
        has_prompt = "prompt" in row or "question" in row
        answers = row.get("answers")
        has_objects = isinstance(answers, list) and any(isinstance(text, dict) for text in answers)
        return has_prompt and not has_objects and RESPONSE_COLUMNS.isdisjoint(row)

    def __call__(self, row: Row) -> Group:
        """A group without responses."""
        if row.get("prompt") is not None:
            prompt = check_prompt(text_or_messages(row, "prompt"))
            return Group(prompt, [], extra=other_fields(row, "prompt"))
        prompt = check_prompt([{"role": "user", "content": text_field(row, "question")}])
        return Group(prompt, [], extra=other_fields(row, "question"))


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Questions)
