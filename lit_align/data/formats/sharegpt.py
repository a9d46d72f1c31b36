"""Conversations whose turns are ``from`` and ``value``: ShareGPT's format, with LLaMA-Factory's additions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.conversations import demonstration_group, demonstration_kinds
from lit_align.data.formats.fields import (
    binary_label,
    other_fields,
    parse_message,
    parse_messages,
    required,
    text_field,
)
from lit_align.data.formats.preferences import pair_group
from lit_align.types import Group, LabelKind, Message

KEYS = "from value"
ROLES = {"function_call": "assistant"}  # the model calls a tool


@dataclass(frozen=True)
class ShareGPT(Format):
    """Column ``conversations``; with ``chosen`` and ``rejected`` (a turn each) it is the prompt of a comparison.

    ``system`` is an optional system prompt, and ``kto_tag`` a binary label of the model's last turn.

    Example:
        >>> turns = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]
        >>> ShareGPT()({"conversations": turns}).prompt
        [{'role': 'user', 'content': '2 + 2?'}]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS, LabelKind.DESIRABLE}
    )

    def recognises(self, row: Row) -> bool:
        """``conversations``, which are turns."""
        turns = row.get("conversations")
        return "conversations" in row and not (isinstance(turns, list) and _is_text(turns[:1]))

    def row_label_kinds(self, row: Row) -> frozenset[LabelKind]:
        """Pairs where two turns are compared, and binary labels where there is a ``kto_tag``."""
        if row.get("chosen"):
            return frozenset({LabelKind.PAIRS, LabelKind.DEMONSTRATIONS})
        return demonstration_kinds(row, "kto_tag")

    def __call__(self, row: Row) -> Group:
        """A group of one or two responses."""
        turns = parse_messages(required(row, "conversations"), "conversations", ROLES, KEYS)
        read = ["conversations"]
        if row.get("system") and (not turns or turns[0]["role"] != "system"):
            turns = [{"role": "system", "content": text_field(row, "system")}, *turns]
            read.append("system")
        if row.get("chosen"):
            extra = other_fields(row, *read, "chosen", "rejected")
            return pair_group(turns, [_turn(row, "chosen")], [_turn(row, "rejected")], extra)
        desirable = binary_label(row, "kto_tag")
        extra = other_fields(row, *read, "kto_tag")
        return demonstration_group(turns, desirable, extra)


def _is_text(turns: list[Any]) -> bool:
    return any(isinstance(turn, str) for turn in turns)


def _turn(row: Row, name: str) -> Message:
    return parse_message(required(row, name), name, ROLES, KEYS)


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(ShareGPT)
