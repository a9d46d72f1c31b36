"""A prompt, K responses and any labels: the format that lit_align itself writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.annotators import ANNOTATOR, annotator_name
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    check_prompt,
    check_response,
    check_same_type,
    has_numbers,
    list_field,
    other_fields,
    parse_ratings,
    text_or_messages,
)
from lit_align.data.formats.shared_columns import read_shared
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind, Pair, Text

LABELS = ("pairs", "desirable", "ranking", "ratings")
SHARED = ("tools", "chat_template_kwargs", "continues")


@dataclass(frozen=True)
class Groups(Format):
    """Columns ``prompt``, ``responses``, and any of ``pairs``, ``desirable``, ``ranking``, ``ratings`` and ``target``.

    A pair is ``[better, worse]`` by index, then optionally the probability that this is right, then the margin. A
    ranking is the place of each response, 1 for the best, the same for a tie and 0 where only the others were placed;
    ratings are an object of numbers by attribute for each response, null where one was not rated. A target is the
    index of the reference answer. A response with its ids in ``tokens`` was sampled, and may be empty. ``tools`` and
    ``chat_template_kwargs`` are for the chat template; ``continues`` is true for plain text that no template renders.

    Example:
        >>> Groups()({"prompt": "2 + 2?", "responses": ["4", "5"], "pairs": [[0, 1, 0.9]]}).pairs
        (Pair(better=0, worse=1, probability=0.9, margin=0.0),)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {
            LabelKind.PAIRS,
            LabelKind.DEMONSTRATIONS,
            LabelKind.DESIRABLE,
            LabelKind.RANKING,
            LabelKind.RATINGS,
        }
    )

    def recognises(self, row: Row) -> bool:
        """``prompt`` and ``responses``, unless the ratings are a plain list of numbers."""
        return {"prompt", "responses"} <= row.keys() and not has_numbers(row.get("ratings"))

    def __call__(self, row: Row) -> Group:
        """A group of as many responses as the row has."""
        prompt = check_prompt(text_or_messages(row, "prompt"))
        responses = _responses(row)
        for response in responses:
            check_same_type(prompt, response, "prompt", "responses")
        desirable = _optional_list(row, "desirable")
        if not all(map(_is_bool, desirable)) or len(desirable) not in (0, len(responses)):
            raise Malformed("'desirable' is not true or false for each response")
        pairs = _optional_list(row, "pairs")
        ranking = _optional_list(row, "ranking")
        if not all(map(_is_place, ranking)) or len(ranking) not in (0, len(responses)):
            raise Malformed("'ranking' is not a place, 1 for the best, for each response")
        ratings = [parse_ratings(values) for values in _optional_list(row, "ratings")]
        if len(ratings) not in (0, len(responses)):
            raise Malformed("'ratings' is not one for each response")
        target = row.get("target")
        if target is not None and (type(target) is not int or not 0 <= target < len(responses)):
            raise Malformed("'target' is not the index of a response")
        group = Group(
            prompt,
            responses,
            tuple(_parse_pair(pair, responses) for pair in pairs),
            tuple(desirable),
            tuple(ranking),
            tuple(ratings),
            target,
            extra=other_fields(row, "prompt", "responses", "target", *LABELS, *SHARED),
            continues=row.get("continues") is True,
            annotator=annotator_name(row.get(ANNOTATOR)),
        )
        return read_shared(row, group)


def as_row(group: Group) -> Row:
    """The row from which `Groups` reads the group.

    Example:
        >>> as_row(Group("2 + 2?", ["4", "5"], (Pair(0, 1),), extra={"level": 1}))
        {'level': 1, 'prompt': '2 + 2?', 'responses': ['4', '5'], 'pairs': [[0, 1, 1.0, 0.0]]}
    """
    row = {**group.extra, "prompt": group.prompt, "responses": group.responses}
    if group.pairs:
        row["pairs"] = [list(pair) for pair in group.pairs]
    for name in ("desirable", "ranking", "ratings"):
        labels = getattr(group, name)
        if labels:
            row[name] = list(labels)
    if group.target is not None:
        row["target"] = group.target
    if group.annotator and group.annotator != annotator_name(row.get(ANNOTATOR)):
        row[ANNOTATOR] = group.annotator
    return row | rendering_columns(group)


def rendering_columns(group: Group) -> Row:
    """The columns of `as_row` that decide how the texts are rendered.

    Example:
        >>> rendering_columns(Group("a", ["b"])), rendering_columns(Group("a", ["b"], continues=True))
        ({}, {'continues': True})
    """
    columns: Row = {}
    if group.tools:
        columns["tools"] = list(group.tools)
    if group.template_kwargs:
        columns["chat_template_kwargs"] = group.template_kwargs
    if group.continues:
        columns["continues"] = True
    return columns


def _responses(row: Row) -> list[Text]:
    values = list_field(row, "responses")
    responses = [text_or_messages({"responses": value}, "responses") for value in values]
    sampled_ids = row.get("tokens") or []
    for i, response in enumerate(responses):
        is_sampled = i < len(sampled_ids) and sampled_ids[i]
        if not is_sampled:
            check_response(response)
    if not responses:
        raise Malformed("no response")
    return responses


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_place(value: Any) -> bool:
    return type(value) is int and value >= 0


def _optional_list(row: Row, name: str) -> list[Any]:
    """The column as a list; empty if it is missing."""
    return [] if row.get(name) is None else list_field(row, name)


def _parse_pair(entry: Any, responses: list[Text]) -> Pair:
    """One entry of ``pairs``, checked."""
    match entry:
        case [int(better), int(worse), *label] if len(label) <= 2 and all(map(_is_finite, label)):
            pair = Pair(better, worse, *map(float, label))
        case _:
            raise Malformed("a pair is not [better, worse, probability, margin]")
    indices = range(len(responses))
    are_indices = better in indices and worse in indices and not isinstance(better, bool)
    if not are_indices or better == worse:
        raise Malformed("a pair is not of two of the responses")
    if not 0 < pair.probability <= 1:
        raise Malformed("a pair's probability is not above 0 and at most 1")
    if responses[better] == responses[worse]:
        raise Malformed("chosen equals rejected")
    return pair


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Groups)
