"""Prompts without a response, for sampling; the other columns are for the reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.conversations import demonstration_group
from lit_align.data.formats.fields import (
    check_prompt,
    other_fields,
    parse_messages,
    required,
    text_or_messages,
)
from lit_align.errors import SetAside
from lit_align.types import Group, LabelKind

PROMPTS = ("prompt", "question", "problem", "instruction", "query")
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
    "conversations",
    "conversation",
    "generations",
    "generation",
}


@dataclass(frozen=True)
class Questions(Format):
    """Column ``prompt``, text or messages, or ``question``, a user's turn; no response, other columns go to rewards.

    The column may also be called ``problem``, ``instruction`` or ``query``, or be ``messages`` that end with the user.
    ``continues: true`` beside a text: it is the beginning of a text that goes on, and no chat template renders it.

    Example:
        >>> Questions()({"question": "2 + 2?", "answer": "4"}).extra
        {'answer': '4'}
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.PROMPTS})

    def recognises(self, row: Row) -> bool:
        """A prompt, and no column that is a response in another format."""
        answers = row.get("answers")
        has_objects = isinstance(answers, list) and any(isinstance(text, dict) for text in answers)
        if has_objects or not RESPONSE_COLUMNS.isdisjoint(row):
            return False
        if "messages" in row:
            return _ends_with_question(row["messages"])
        return bool(_prompt_of(row))

    def __call__(self, row: Row) -> Group:
        """A group without responses."""
        name = _prompt_of(row)
        if name:
            prompt = text_or_messages(row, name)
            if row.get("continues") is True and isinstance(prompt, str):
                extra = other_fields(row, name, "continues")
                return Group(check_prompt(prompt), [], extra=extra, continues=True)
            if name == "question" and isinstance(prompt, str):
                prompt = [{"role": "user", "content": prompt}]
            if isinstance(prompt, list) and prompt and prompt[-1]["role"] == "assistant":
                raise SetAside(
                    f"the last turn of '{name}' is the assistant's: nothing is left to answer"
                )
            return Group(check_prompt(prompt), [], extra=other_fields(row, name))
        turns = parse_messages(required(row, "messages"), "messages")
        extra = other_fields(row, "messages")
        if turns and turns[-1]["role"] == "assistant":
            return demonstration_group(turns, (), extra)._replace(responses=[])
        return Group(check_prompt(turns), [], extra=extra)


def _prompt_of(row: Row) -> str:
    """The column with the prompt; empty if there is none."""
    for name in PROMPTS:
        if isinstance(row.get(name), str | list):
            return name
    return ""


def _ends_with_question(turns: Any) -> bool:
    """Whether the last of a list of turns is the user's."""
    last = turns[-1] if isinstance(turns, list) and turns else None
    return isinstance(last, dict) and last.get("role") == "user"


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Questions)
