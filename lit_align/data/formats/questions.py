"""Prompts without a response, for sampling; what else a row holds is for the reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import checked_prompt, text, text_or_messages, unused
from lit_align.types import Group


@dataclass(frozen=True)
class Questions(Format):
    """Column ``prompt``, text or messages, or ``question``, a user's turn; no response, other columns are kept.

    Example:
        >>> Questions()({"question": "2 + 2?", "answer": "4"}).extra
        {'answer': '4'}
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset({"prompts"})
    responses: ClassVar[frozenset[str]] = frozenset(
        {
            "completion",
            "response",
            "responses",
            "chosen",
            "rejected",
            "output",
            "messages",
            "conversations",
        }
    )

    def recognises(self, row: Row) -> bool:
        """``prompt`` or ``question``, and nothing that another layout calls a response."""
        return bool({"prompt", "question"} & row.keys()) and not self.responses & row.keys()

    def __call__(self, row: Row) -> Group:
        """The row as a group without responses."""
        if row.get("prompt") is not None:
            return Group(
                checked_prompt(text_or_messages(row, "prompt")), [], extra=unused(row, "prompt")
            )
        asked = checked_prompt([{"role": "user", "content": text(row, "question")}])
        return Group(asked, [], extra=unused(row, "question"))


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(Questions)
