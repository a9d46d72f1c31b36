"""One response a row with numbers beside it (HelpSteer: Wang et al., 2023, https://arxiv.org/abs/2311.09528)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    checked_prompt,
    checked_response,
    rating,
    text_or_messages,
    unused,
)
from lit_align.errors import Malformed
from lit_align.types import Group


@dataclass(frozen=True)
class Rated(Format):
    """Columns ``prompt``, ``response`` and a number for each attribute; null where one was not rated.

    Args:
        attributes: names of the columns with ratings.
        low: the lowest rating there is; one below it is malformed.
        high: the highest.

    Example:
        >>> Rated()({"prompt": "2 + 2?", "response": "4", "helpfulness": 4, "verbosity": None}).ratings
        ({'helpfulness': 4.0},)
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset({"ratings"})
    attributes: list[str] = field(
        default_factory=lambda: [
            "helpfulness",
            "correctness",
            "coherence",
            "complexity",
            "verbosity",
        ]
    )
    low: float = 0.0
    high: float = 4.0

    def recognises(self, row: Row) -> bool:
        """``prompt``, ``response`` and at least one of the attributes."""
        return {"prompt", "response"} <= row.keys() and any(name in row for name in self.attributes)

    def __call__(self, row: Row) -> Group:
        """The row as a group of one response."""
        prompt, response = (
            checked_prompt(text_or_messages(row, "prompt")),
            text_or_messages(row, "response"),
        )
        rated = rating({name: row.get(name) for name in self.attributes})
        for name, value in rated.items():
            if not self.low <= value <= self.high:
                raise Malformed(f"the rating '{name}' is not from {self.low:g} to {self.high:g}")
        if isinstance(prompt, str) != isinstance(response, str):
            raise Malformed("one of 'prompt' and 'response' is text, the other messages")
        extra = unused(row, "prompt", "response", *self.attributes)
        return Group(prompt, [checked_response(response)], ratings=(rated,), extra=extra)


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(Rated)
