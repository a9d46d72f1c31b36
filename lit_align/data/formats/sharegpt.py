"""Conversations whose turns are ``from`` and ``value``: ShareGPT's layout, with LLaMA-Factory's additions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.conversations import demonstrated
from lit_align.data.formats.fields import flag, found, message, messages, text, unused
from lit_align.data.formats.preferences import compared
from lit_align.errors import SetAside
from lit_align.types import Group, Message

ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",  # the model asks for a tool
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}


@dataclass(frozen=True)
class ShareGPT(Format):
    """Column ``conversations``; with ``chosen`` and ``rejected`` (a turn each) it is the prompt of a comparison.

    ``system`` is read where it stands, and ``kto_tag`` is a thumb on the last turn of the model.

    Example:
        >>> turns = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]
        >>> ShareGPT()({"conversations": turns}).prompt
        [{'role': 'user', 'content': '2 + 2?'}]
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset({"pairs", "demonstrations", "desirable"})

    def recognises(self, row: Row) -> bool:
        """``conversations``."""
        return "conversations" in row

    def __call__(self, row: Row) -> Group:
        """The row as a group of one or two."""
        if row.get("tools"):
            raise SetAside("the row offers tools, which prompts here cannot")
        turns = messages(found(row, "conversations"), "conversations", ROLES, "from value")
        if row.get("system"):
            turns = [{"role": "system", "content": text(row, "system")}, *turns]
        extra = unused(row, "conversations", "chosen", "rejected", "system", "tools", "kto_tag")
        if "chosen" in row:
            return compared(turns, [_turn(row, "chosen")], [_turn(row, "rejected")], extra)
        return demonstrated(turns, (flag(row, "kto_tag"),) if "kto_tag" in row else (), extra)


def _turn(row: Row, name: str) -> Message:
    return message(found(row, name), name, ROLES, "from value")


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(ShareGPT)
