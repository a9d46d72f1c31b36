"""Plain texts to continue learning from: https://huggingface.co/docs/trl/dataset_formats#language-modeling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import checked_response, text, unused
from lit_align.types import Group


@dataclass(frozen=True)
class Texts(Format):
    """Column ``text``, all of it learned from; the prompt is empty.

    Example:
        >>> Texts()({"text": "The sky is blue."}).responses
        ['The sky is blue.']
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset({"demonstrations"})

    def recognises(self, row: Row) -> bool:
        """``text``, without a prompt, turns or a label that would give it another meaning."""
        return "text" in row and not row.keys() & {
            "prompt",
            "messages",
            "conversations",
            "instruction",
            "label",
        }

    def __call__(self, row: Row) -> Group:
        """The row as a group of one."""
        return Group("", [checked_response(text(row, "text"))], extra=unused(row, "text"))


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(Texts)
