"""Conversations to imitate: https://huggingface.co/docs/trl/dataset_formats#language-modeling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    binary_label,
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

    def row_label_kinds(self, row: Row) -> frozenset[LabelKind]:
        """Binary labels where there is a ``label``."""
        return demonstration_kinds(row, "label")

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        desirable = binary_label(row, "label")
        turns = parse_messages(required(row, "messages"), "messages")
        return demonstration_group(turns, desirable, other_fields(row, "messages", "label"))


def demonstration_kinds(row: Row, label: str) -> frozenset[LabelKind]:
    """Demonstrations, and binary labels where the column ``label`` holds one."""
    kinds = frozenset({LabelKind.DEMONSTRATIONS})
    return kinds if row.get(label) is None else kinds | {LabelKind.DESIRABLE}


def demonstration_group(turns: list[Message], desirable: tuple[bool, ...], extra: Row) -> Group:
    """A conversation as a group of one response.

    The response begins at the first assistant turn after a user turn; with a binary label, at the last one.
    """
    roles = [turn["role"] for turn in turns]
    if "assistant" not in roles:
        raise Malformed("no assistant turn")
    if "user" not in roles:
        raise Malformed("empty prompt")
    first_question = roles.index("user")
    answers = []
    for i, role in enumerate(roles):
        if role == "assistant" and i > first_question:
            answers.append(i)
    if not answers:
        raise Malformed("empty prompt")
    last_answer = answers[-1]
    start = last_answer if desirable else answers[0]
    end = last_answer + 1  # turns after the last answer are dropped
    prompt, response = check_prompt(turns[:start]), check_response(turns[start:end])
    return Group(prompt, [response], desirable=desirable, extra=extra)


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Conversations)
