"""Prompts with a completion, labelled or not: https://huggingface.co/docs/trl/dataset_formats#prompt-completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.conversations import demonstration_kinds
from lit_align.data.formats.fields import (
    binary_label,
    check_prompt,
    check_response,
    check_same_type,
    other_fields,
    text_or_messages,
)
from lit_align.types import Group, LabelKind


@dataclass(frozen=True)
class Completions(Format):
    """Columns ``prompt`` and ``completion``, text or messages; ``label`` is an optional binary label.

    Example:
        >>> Completions()({"prompt": "The sky is", "completion": " blue.", "label": True}).desirable
        (True,)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.DEMONSTRATIONS, LabelKind.DESIRABLE}
    )

    def recognises(self, row: Row) -> bool:
        """``prompt`` and ``completion``."""
        return {"prompt", "completion"} <= row.keys()

    def row_label_kinds(self, row: Row) -> frozenset[LabelKind]:
        """Binary labels where there is a ``label``."""
        return demonstration_kinds(row, "label")

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        prompt = text_or_messages(row, "prompt")
        completion = text_or_messages(row, "completion")
        check_same_type(prompt, completion, "prompt", "completion")
        desirable = binary_label(row, "label")
        extra = other_fields(row, "prompt", "completion", "label")
        prompt = check_prompt(prompt)
        return Group(prompt, [check_response(completion)], desirable=desirable, extra=extra)


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Completions)
