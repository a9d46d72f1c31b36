"""Plain texts for language modelling: https://huggingface.co/docs/trl/dataset_formats#language-modeling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import check_response, other_fields, text_field
from lit_align.types import Group, LabelKind

OTHER_FORMATS = {"prompt", "messages", "conversations", "instruction", "label"}
QUESTIONS = {"question", "problem", "query", "input", "inputs"}
PARTS_OF_CONVERSATIONS = {"role", "parent_id", "message_id", "message_tree_id"}


@dataclass(frozen=True)
class Texts(Format):
    """Column ``text``, all of it trained on; the prompt is empty.

    Example:
        >>> Texts()({"text": "The sky is blue."}).responses
        ['The sky is blue.']
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.DEMONSTRATIONS})

    def recognises(self, row: Row) -> bool:
        """``text``, without a prompt, turns or a label, with which it would mean something else."""
        others = OTHER_FORMATS | QUESTIONS | PARTS_OF_CONVERSATIONS
        return "text" in row and row.keys().isdisjoint(others)

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        response = check_response(text_field(row, "text"))
        return Group("", [response], extra=other_fields(row, "text"), continues=True)


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Texts)
