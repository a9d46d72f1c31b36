"""Completions with scores (Cui et al., 2023, https://huggingface.co/datasets/openbmb/UltraFeedback)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    are_objects,
    check_prompt,
    check_range,
    check_response,
    list_field,
    number,
    other_fields,
    places_by_score,
    required,
    text_field,
)
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, LabelKind

NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
LOWEST, HIGHEST = 1, 5
SCORED = frozenset({LabelKind.RANKING, LabelKind.RATINGS, LabelKind.DEMONSTRATIONS})


@dataclass(frozen=True)
class UltraFeedback(Format):
    """Columns ``instruction`` and ``completions``: texts in ``response`` with scores and ratings by aspect.

    The ranking is by one score. Some of the published overall scores contradict their critique; the fine-grained score
    is the mean of the aspects. The system prompts that the completions were sampled with differ and are not read.

    Args:
        score: the key of the completions' score.

    Example:
        >>> completions = [{"response": "5", "fine-grained_score": 1}, {"response": "4", "fine-grained_score": 5}]
        >>> UltraFeedback()({"instruction": "2 + 2?", "completions": completions}).ranking
        (2, 1)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = SCORED
    score: Literal["fine-grained_score", "overall_score"] = "fine-grained_score"

    def recognises(self, row: Row) -> bool:
        """``instruction`` and completions with a response."""
        return "instruction" in row and are_objects(row.get("completions"), "response")

    def __call__(self, row: Row) -> Group:
        """A group of as many responses as there are completions."""
        completions = list_field(row, "completions")
        if not completions:
            raise SetAside("no completion")
        if not are_objects(completions, "response"):
            raise Malformed("'completions' is not a list of objects with 'response'")
        scores = [number(required(entry, self.score), f"'{self.score}'") for entry in completions]
        return Group(
            check_prompt(text_field(row, "instruction")),
            [check_response(text_field(entry, "response")) for entry in completions],
            ranking=places_by_score(scores),
            ratings=tuple(_ratings(entry.get("annotations")) for entry in completions),
            extra=other_fields(row, "instruction", "completions"),
        )


def _ratings(annotations: Any) -> dict[str, float]:
    """The ratings by aspect; an aspect without a number, such as N/A, was not rated."""
    ratings: dict[str, float] = {}
    if not isinstance(annotations, dict):
        return ratings
    for aspect, annotation in annotations.items():
        for entry in annotation if isinstance(annotation, list) else [annotation]:
            rating = str(entry.get("Rating")) if isinstance(entry, dict) else ""
            if NUMBER.fullmatch(rating):
                ratings[str(aspect)] = float(rating)
    check_range(ratings, LOWEST, HIGHEST)
    return ratings


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(UltraFeedback)
