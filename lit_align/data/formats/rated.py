"""One response a row with numeric ratings (HelpSteer: Wang et al., 2023, https://arxiv.org/abs/2311.09528)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    check_prompt,
    check_range,
    check_response,
    check_same_type,
    other_fields,
    parse_ratings,
    text_or_messages,
)
from lit_align.types import Group, LabelKind

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


@dataclass(frozen=True)
class Rated(Format):
    """Columns ``prompt``, ``response`` and a number for each attribute; null where one was not rated.

    Args:
        attributes: names of the columns with ratings.
        low: the lowest rating; one below it is malformed.
        high: the highest rating; one above it is malformed.

    Example:
        >>> Rated()({"prompt": "2 + 2?", "response": "4", "helpfulness": 4, "verbosity": None}).ratings
        ({'helpfulness': 4.0},)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.RATINGS})
    attributes: list[str] = field(default_factory=lambda: list(HELPSTEER))
    low: float = 0.0
    high: float = 4.0

    def recognises(self, row: Row) -> bool:
        """``prompt``, ``response`` and at least one of the attributes."""
        return {"prompt", "response"} <= row.keys() and any(name in row for name in self.attributes)

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        prompt = check_prompt(text_or_messages(row, "prompt"))
        response = text_or_messages(row, "response")
        ratings = self._ratings(row)
        check_same_type(prompt, response, "prompt", "response")
        extra = other_fields(row, "prompt", "response", *self.attributes)
        return Group(prompt, [check_response(response)], ratings=(ratings,), extra=extra)

    def _ratings(self, row: Row) -> dict[str, float]:
        ratings = parse_ratings({name: row.get(name) for name in self.attributes})
        check_range(ratings, self.low, self.high)
        return ratings


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Rated)
