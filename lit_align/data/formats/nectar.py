"""Rankings of seven answers (Zhu et al., 2023, https://huggingface.co/datasets/berkeley-nest/Nectar)."""

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
    text_field,
    text_or_messages,
)
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind


@dataclass(frozen=True)
class Nectar(Format):
    """Columns ``prompt`` and ``answers``, a list of objects with ``answer`` and ``rank``, 1 for the best.

    Example:
        >>> answers = [{"answer": "5", "rank": 2.0}, {"answer": "4", "rank": 1.0}]
        >>> Nectar()({"prompt": "2 + 2?", "answers": answers}).ranking
        (2, 1)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.RANKING, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """``prompt`` and answers with a rank."""
        return "prompt" in row and are_objects(row.get("answers"), "answer", "rank")

    def __call__(self, row: Row) -> Group:
        """A group of as many responses as there are answers."""
        prompt = check_prompt(text_or_messages(row, "prompt"))
        answers = list_field(row, "answers")
        if not are_objects(answers, "answer", "rank"):
            raise Malformed("'answers' is not a list of objects with 'answer' and 'rank'")
        responses = [check_response(text_field(answer, "answer")) for answer in answers]
        ranks = [number(answer["rank"], "a rank") for answer in answers]
        return Group(
            prompt,
            responses,
            ranking=places_by_score([-rank for rank in ranks]),
            extra=other_fields(row, "prompt", "answers"),
        )


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Nectar)
