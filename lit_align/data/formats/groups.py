"""A prompt, K responses and what is known about them: the layout that lit_align itself writes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    checked_prompt,
    checked_response,
    found,
    rating,
    text_or_messages,
    unused,
)
from lit_align.errors import Malformed
from lit_align.types import Group, Pair, Text


@dataclass(frozen=True)
class Groups(Format):
    """Columns ``prompt``, ``responses``, and any of ``pairs``, ``desirable``, ``ranking``, ``ratings`` and ``target``.

    A pair is ``[better, worse]`` by index, then optionally the probability that this is right, then the margin. A
    ranking is the place of each response, 1 for the best, the same for a tie and 0 where only the others were placed;
    ratings are an object of numbers by attribute for each response, null where one was not measured. A target is the
    index of a response held up as the answer. A response with its ids in ``tokens`` was sampled, and may be empty.

    Example:
        >>> Groups()({"prompt": "2 + 2?", "responses": ["4", "5"], "pairs": [[0, 1, 0.9]]}).pairs
        (Pair(better=0, worse=1, probability=0.9, margin=0.0),)
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset(
        {"pairs", "demonstrations", "desirable", "ranking", "ratings"}
    )

    def recognises(self, row: Row) -> bool:
        """``prompt`` and ``responses``."""
        return {"prompt", "responses"} <= row.keys()

    def __call__(self, row: Row) -> Group:
        """The row as a group of as many as it has."""
        prompt, given = checked_prompt(text_or_messages(row, "prompt")), _list(row, "responses")
        sampled = row.get("tokens") or [None] * len(given)
        responses = [text_or_messages({"responses": response}, "responses") for response in given]
        responses = [
            one if ids else checked_response(one)
            for one, ids in zip_longest(responses, sampled[: len(responses)])
        ]
        if not responses:
            raise Malformed("no response")
        if any(isinstance(response, str) != isinstance(prompt, str) for response in responses):
            raise Malformed("one of 'prompt' and 'responses' is text, the other messages")
        desirable = _list(row, "desirable") if row.get("desirable") is not None else []
        if not all(isinstance(thumb, bool) for thumb in desirable) or len(desirable) not in (
            0,
            len(responses),
        ):
            raise Malformed("'desirable' is not true or false for each response")
        pairs = _list(row, "pairs") if row.get("pairs") is not None else []
        ranking = _list(row, "ranking") if row.get("ranking") is not None else []
        if not all(type(place) is int and place >= 0 for place in ranking) or len(ranking) not in (
            0,
            len(responses),
        ):
            raise Malformed("'ranking' is not a place, 1 for the best, for each response")
        ratings = (
            [rating(one) for one in _list(row, "ratings")] if row.get("ratings") is not None else []
        )
        if len(ratings) not in (0, len(responses)):
            raise Malformed("'ratings' is not one for each response")
        target = row.get("target")
        if target is not None and (type(target) is not int or not 0 <= target < len(responses)):
            raise Malformed("'target' is not the index of a response")
        extra = unused(
            row, "prompt", "responses", "pairs", "desirable", "ranking", "ratings", "target"
        )
        compared = tuple(_pair(pair, responses) for pair in pairs)
        return Group(
            prompt,
            responses,
            compared,
            tuple(desirable),
            tuple(ranking),
            tuple(ratings),
            target,
            extra=extra,
        )


def as_row(group: Group) -> Row:
    """The columns that a group is read from.

    Example:
        >>> as_row(Group("2 + 2?", ["4", "5"], (Pair(0, 1),), extra={"level": 1}))
        {'level': 1, 'prompt': '2 + 2?', 'responses': ['4', '5'], 'pairs': [[0, 1, 1.0, 0.0]]}
    """
    row = {**group.extra, "prompt": group.prompt, "responses": group.responses}
    for name in ("pairs", "desirable", "ranking", "ratings"):
        if labels := getattr(group, name):
            row[name] = [list(one) if isinstance(one, Pair) else one for one in labels]
    return row if group.target is None else {**row, "target": group.target}


def _list(row: Row, name: str) -> list[Any]:
    value = found(row, name)
    if not isinstance(value, list):
        raise Malformed(f"'{name}' is not a list (got {type(value).__name__})")
    return value


def _pair(entry: Any, responses: list[Text]) -> Pair:
    """One entry of ``pairs``, checked."""
    match entry:
        case [int(better), int(worse), *label] if len(label) <= 2 and all(
            isinstance(x, int | float) for x in label
        ):
            pair = Pair(better, worse, *map(float, label))
        case _:
            raise Malformed("a pair is not [better, worse, probability, margin]")
    if (
        not {better, worse} <= set(range(len(responses)))
        or better == worse
        or isinstance(better, bool)
    ):
        raise Malformed("a pair is not of two of the responses")
    if not 0 < pair.probability <= 1:
        raise Malformed("a pair's probability is not above 0 and at most 1")
    if responses[better] == responses[worse]:
        raise Malformed("chosen equals rejected")
    return pair


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(Groups)
