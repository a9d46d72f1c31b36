"""Ratings of single summaries, the configuration ``axis`` of https://huggingface.co/datasets/openai/summarize_from_feedback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    check_prompt,
    check_range,
    check_response,
    other_fields,
    parse_ratings,
    required,
    text_field,
)
from lit_align.data.formats.summaries import prompt_of_info
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind

LOWEST, HIGHEST = 1, 7


@dataclass(frozen=True)
class SummaryRatings(Format):
    """Columns ``info`` (a post or an article) and ``summary``, with ``text`` and ratings from 1 to 7 in ``axes``.

    Example:
        >>> summary = {"text": " A cat.", "axes": {"overall": 5, "coverage": None}}
        >>> SummaryRatings()({"info": {"post": "My cat."}, "summary": summary}).ratings
        ({'overall': 5.0},)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.RATINGS})

    def recognises(self, row: Row) -> bool:
        """``info`` and a summary with ratings."""
        summary = row.get("summary")
        return "info" in row and isinstance(summary, dict) and "axes" in summary

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        summary = required(row, "summary")
        if not isinstance(summary, dict):
            raise Malformed("'summary' is not an object with 'text' and 'axes'")
        ratings = parse_ratings(required(summary, "axes"))
        check_range(ratings, LOWEST, HIGHEST)
        return Group(
            check_prompt(prompt_of_info(required(row, "info"))),
            [check_response(text_field(summary, "text"))],
            ratings=(ratings,),
            extra=other_fields(row, "info", "summary"),
        )


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(SummaryRatings)
