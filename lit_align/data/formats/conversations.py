"""Conversations to imitate: https://huggingface.co/docs/trl/dataset_formats#language-modeling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    bool_field,
    check_prompt,
    check_response,
    other_fields,
    parse_messages,
    required,
)
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind, Message


@dataclass(frozen=True)
class Conversations(Format):
    """Column ``messages``: every assistant turn after the first user turn is trained on.

    With a binary ``label``, the last assistant turn alone is the response, and all before it is the prompt.

    Example:
        >>> turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
        >>> Conversations()({"messages": turns}).responses
        [[{'role': 'assistant', 'content': '4'}]]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.DEMONSTRATIONS, LabelKind.DESIRABLE}
    )

    def recognises(self, row: Row) -> bool:
        """``messages``."""
        return "messages" in row

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        desirable = (bool_field(row, "label"),) if "label" in row else ()
        turns = parse_messages(required(row, "messages"), "messages")
        return demonstration_group(turns, desirable, other_fields(row, "messages", "label"))


def demonstration_group(turns: list[Message], desirable: tuple[bool, ...], extra: Row) -> Group:
    """A conversation as a group of one response.

    The response begins at the first assistant turn after a user turn; with a binary label, at the last one.
    """
    answers = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    if not answers:
        raise Malformed("no assistant turn")
    questions = [i for i, turn in enumerate(turns) if turn["role"] == "user"]
    if questions:
        answers = [i for i in answers if i > questions[0]]
    if not questions or not answers:
        raise Malformed("empty prompt")
    start = answers[-1] if desirable else answers[0]
    end = answers[-1] + 1  # turns after the last answer are dropped
    prompt, response = check_prompt(turns[:start]), check_response(turns[start:end])
    return Group(prompt, [response], desirable=desirable, extra=extra)


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Conversations)
