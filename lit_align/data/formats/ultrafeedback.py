"""Completions with scores (Cui et al., 2023, https://huggingface.co/datasets/openbmb/UltraFeedback)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    check_prompt,
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
        completions = row.get("completions")
        is_list = isinstance(completions, list) and bool(completions)
        return "instruction" in row and is_list and all(map(_has_response, completions or []))

    def __call__(self, row: Row) -> Group:
        """A group of as many responses as there are completions."""
        completions = list_field(row, "completions")
        if not completions:
            raise SetAside("no completion")
        if not all(map(_has_response, completions)):
            raise Malformed("'completions' is not a list of objects with 'response'")
        scores = [number(required(entry, self.score), f"'{self.score}'") for entry in completions]
        return Group(
            check_prompt(text_field(row, "instruction")),
            [check_response(text_field(entry, "response")) for entry in completions],
            ranking=places_by_score(scores),
            ratings=tuple(_ratings(entry.get("annotations")) for entry in completions),
            extra=other_fields(row, "instruction", "completions"),
        )


@dataclass(frozen=True)
class Generations(Format):
    """Columns ``instruction``, ``generations`` (texts) and ``ratings``, as distilabel's pipelines write them.

    Published by https://distilabel.argilla.io/latest/components-gallery/tasks/ultrafeedback/. A generation without a
    rating is left out.

    Example:
        >>> Generations()({"instruction": "2 + 2?", "generations": ["5", "4"], "ratings": [1, 5]}).ranking
        (2, 1)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = SCORED

    def recognises(self, row: Row) -> bool:
        """``instruction``, ``generations`` and ``ratings``, and no better and worse one chosen of them."""
        names = {"instruction", "generations", "ratings"}
        return names <= row.keys() and row.keys().isdisjoint({"chosen", "chosen_response"})

    def __call__(self, row: Row) -> Group:
        """A group of the rated generations."""
        generations, ratings = list_field(row, "generations"), list_field(row, "ratings")
        if len(generations) != len(ratings):
            raise Malformed("'ratings' is not one for each of 'generations'")
        rated = []
        for text, rating in zip(generations, ratings, strict=True):
            if text is not None and rating is not None:
                rated.append((text, number(rating, "a rating")))
        if not rated:
            raise SetAside("no rated generation")
        responses = [
            check_response(text_field({"generation": text}, "generation")) for text, _ in rated
        ]
        scores = [score for _, score in rated]
        return Group(
            check_prompt(text_field(row, "instruction")),
            responses,
            ranking=places_by_score(scores),
            ratings=tuple({"rating": score} for score in scores),
            extra=other_fields(row, "instruction", "generations", "ratings"),
        )


def _has_response(completion: Any) -> bool:
    return isinstance(completion, dict) and "response" in completion


def _ratings(annotations: Any) -> dict[str, float]:
    """The ratings by aspect; an aspect without a number, such as N/A, was not rated."""
    ratings: dict[str, float] = {}
    for aspect, annotation in (annotations or {}).items():
        for entry in annotation if isinstance(annotation, Sequence) else [annotation]:
            rating = str(entry.get("Rating")) if isinstance(entry, dict) else ""
            if rating.replace(".", "", 1).isdigit():
                ratings[aspect] = float(rating)
    return ratings


@hookimpl
def register_formats(register: Register) -> None:
    """Register the formats."""
    register(UltraFeedback)
    register(Generations)
