"""Answers with upvotes (https://huggingface.co/datasets/HuggingFaceH4/stack-exchange-preferences)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    are_objects,
    check_prompt,
    check_response,
    list_field,
    number,
    other_fields,
    places_by_score,
    required,
    text_field,
)
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind


@dataclass(frozen=True)
class StackExchange(Format):
    """Columns ``question`` and ``answers``, a list of objects with ``text`` and ``pm_score``, more for the better.

    Example:
        >>> answers = [{"text": "5", "pm_score": 0}, {"text": "4", "pm_score": 3}]
        >>> StackExchange()({"question": "2 + 2?", "answers": answers}).ranking
        (2, 1)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.RANKING, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """``question`` and answers with a score."""
        return "question" in row and are_objects(row.get("answers"), "text", "pm_score")

    def __call__(self, row: Row) -> Group:
        """A group of as many responses as there are answers."""
        answers = list_field(row, "answers")
        if not are_objects(answers, "text", "pm_score"):
            raise Malformed("'answers' is not a list of objects with 'text' and 'pm_score'")
        scores = [number(required(answer, "pm_score"), "'pm_score'") for answer in answers]
        return Group(
            check_prompt(text_field(row, "question")),
            [check_response(text_field(answer, "text")) for answer in answers],
            ranking=places_by_score(scores),
            extra=other_fields(row, "question", "answers"),
        )


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(StackExchange)
