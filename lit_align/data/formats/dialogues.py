"""Conversations in a column ``conversation``: those of WildChat, LMSYS-Chat-1M, Capybara and distilabel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.alpaca import Alpaca
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.completions import Completions
from lit_align.data.formats.conversations import demonstration_group
from lit_align.data.formats.fields import (
    are_objects,
    list_field,
    other_fields,
    parse_messages,
    text_field,
)
from lit_align.data.formats.public_completions import PublicCompletions
from lit_align.data.formats.texts import Texts
from lit_align.types import Group, LabelKind, Message

COMPARED = {"chosen", "rejected", "messages", "conversations"}
WITH_RESPONSE = (Alpaca(), Completions(), PublicCompletions(), Texts())
"""Formats with a column for the response, beside which a conversation is something else."""


@dataclass(frozen=True)
class Dialogues(Format):
    """Column ``conversation``: turns with ``role`` and ``content``, or exchanges with ``input`` and ``output``.

    The layouts of https://huggingface.co/datasets/allenai/WildChat-1M, https://huggingface.co/datasets/lmsys/lmsys-chat-1m
    and https://huggingface.co/datasets/LDJnr/Capybara.

    Example:
        >>> Dialogues()({"conversation": [{"input": "2 + 2?", "output": "4"}]}).responses
        [[{'role': 'assistant', 'content': '4'}]]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.DEMONSTRATIONS})

    def recognises(self, row: Row) -> bool:
        """``conversation``, and no column with another one or with a response."""
        if not isinstance(row.get("conversation"), list) or not COMPARED.isdisjoint(row):
            return False
        return not any(row_format.recognises(row) for row_format in WITH_RESPONSE)

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        value = list_field(row, "conversation")
        turns: list[Message] = []
        if are_objects(value, "input", "output"):
            for exchange in value:
                turns.append({"role": "user", "content": text_field(exchange, "input")})
                turns.append({"role": "assistant", "content": text_field(exchange, "output")})
        else:
            turns = parse_messages(value, "conversation")
        return demonstration_group(turns, (), other_fields(row, "conversation"))


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Dialogues)
