"""Conversations as lists of texts (Zhou et al., 2023, https://huggingface.co/datasets/GAIR/lima)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.conversations import demonstration_group
from lit_align.data.formats.fields import list_field, other_fields, text_field
from lit_align.data.formats.known_columns import (
    ANSWERS,
    QUESTIONS,
    holds_something,
    plain_name,
)
from lit_align.data.formats.preferences import is_list_of_texts
from lit_align.errors import SetAside
from lit_align.types import Group, LabelKind, Message

SPEAKERS = ("user", "assistant")
OTHER_FORMATS = {"messages", "conversation", "chosen", "rejected", "responses"}


@dataclass(frozen=True)
class LIMA(Format):
    """Column ``conversations`` or ``data``, a list of texts: the user's and the assistant's in turn.

    The second is the layout of https://huggingface.co/datasets/stingning/ultrachat; beside a column with a prompt or a
    response, ``data`` is something else.

    Example:
        >>> LIMA()({"conversations": ["2 + 2?", "4"]}).responses
        [[{'role': 'assistant', 'content': '4'}]]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.DEMONSTRATIONS})

    def recognises(self, row: Row) -> bool:
        """A list of texts, and no turns."""
        if is_list_of_texts(row.get("conversations")):
            return "messages" not in row
        return is_list_of_texts(row.get("data")) and not _has_other_texts(row)

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        is_data = is_list_of_texts(row.get("data")) and not holds_something(
            row.get("conversations")
        )
        name = "data" if is_data else "conversations"
        texts = list_field(row, name)
        if len(texts) == 1:
            raise SetAside("a question without an answer")
        turns: list[Message] = []
        for i, text in enumerate(texts):
            content = text_field({name: text}, name)
            turns.append({"role": SPEAKERS[i % 2], "content": content})
        return demonstration_group(turns, (), other_fields(row, name))


def _has_other_texts(row: Row) -> bool:
    """Whether a column may hold the prompt or the response."""
    for name, value in row.items():
        is_known = name in OTHER_FORMATS | ANSWERS or plain_name(name) in QUESTIONS
        if is_known and holds_something(value):
            return True
    return False


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(LIMA)
