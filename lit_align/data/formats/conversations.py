"""Conversations to imitate: https://huggingface.co/docs/trl/dataset_formats#language-modeling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    checked_prompt,
    checked_response,
    flag,
    found,
    messages,
    unused,
)
from lit_align.errors import Malformed
from lit_align.types import Group, Message


@dataclass(frozen=True)
class Conversations(Format):
    """Column ``messages``: every assistant turn after the first user turn is learned from.

    With ``label`` true or false, the thumb is on the last assistant turn, and all before it is the prompt.

    Example:
        >>> turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
        >>> Conversations()({"messages": turns}).responses
        [[{'role': 'assistant', 'content': '4'}]]
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset({"demonstrations", "desirable"})

    def recognises(self, row: Row) -> bool:
        """``messages``."""
        return "messages" in row

    def __call__(self, row: Row) -> Group:
        """The row as a group of one."""
        desirable = (flag(row, "label"),) if "label" in row else ()
        turns = messages(found(row, "messages"), "messages")
        return demonstrated(turns, desirable, unused(row, "messages", "label"))


def demonstrated(turns: list[Message], desirable: tuple[bool, ...], extra: Row) -> Group:
    """A conversation as a group of one; its last assistant turn alone is the response if that has been judged."""
    answers = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    if not answers:
        raise Malformed("no assistant turn")
    asked = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), len(turns))
    answers = [i for i in answers if i > asked]
    if not answers:
        raise Malformed("empty prompt")
    start, end = (
        answers[-1 if desirable else 0],
        answers[-1] + 1,
    )  # what comes after the last answer has none
    prompt, response = checked_prompt(turns[:start]), checked_response(turns[start:end])
    return Group(prompt, [response], desirable=desirable, extra=extra)


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(Conversations)
