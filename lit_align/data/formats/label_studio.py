"""Comparisons annotated in Label Studio: https://labelstud.io/guide/export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.annotation_votes import (
    TIES,
    AnnotatorVote,
    Places,
    group_of_votes,
    is_comparison,
    numbered_responses,
    places_of_choice,
    prompt_of,
)
from lit_align.data.formats.base import Format, LocatedRow, Row
from lit_align.data.formats.fields import list_field, other_fields
from lit_align.errors import Malformed, SetAside
from lit_align.literals import parse_literal
from lit_align.types import Group, LabelKind

SIDES = {"left": 0, "right": 1}
ABOUT_ANNOTATION = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time")
VOTES = "annotation_votes"


@dataclass(frozen=True)
class LabelStudio(Format):
    """Columns ``data`` (a prompt and responses such as ``answer1`` and ``answer2``) and ``annotations``.

    The JSON export; the left response is the first one. A vote is a side of the tag Pairwise, or one choice of the tag
    Choices that names a response. Cancelled annotations do not count, and the probability is the majority's share.

    Example:
        >>> data = {"prompt": "2 + 2?", "answer1": "5", "answer2": "4"}
        >>> annotations = [{"result": [{"type": "pairwise", "value": {"selected": "right"}}]}]
        >>> LabelStudio()({"data": data, "annotations": annotations}).pairs
        (Pair(better=1, worse=0, probability=1.0, margin=0.0),)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """``data`` with a prompt and responses, and ``annotations``."""
        data = row.get("data")
        return (
            isinstance(data, dict)
            and isinstance(row.get("annotations"), list)
            and is_comparison(data)
        )

    def __call__(self, row: Row) -> Group:
        """A group of as many responses as there are."""
        data = row.get("data")
        if not isinstance(data, dict) or not is_comparison(data):
            raise Malformed("'data' is not a prompt and numbered responses")
        names = numbered_responses(data)
        votes: list[Places] = []
        for annotation in list_field(row, "annotations"):
            votes += _votes_of_annotation(annotation, names)
        extra = {
            **other_fields(row, "data", "annotations"),
            **other_fields(data, prompt_of(data), *names),
        }
        return group_of_votes(data, votes)._replace(extra=extra)


@dataclass(frozen=True)
class LabelStudioMin(Format):
    """A prompt, responses such as ``answer1`` and ``answer2``, ``annotation_id`` and a vote, one annotation a row.

    The export JSON_MIN of Label Studio. Annotations of the same task stand together, and become one row.

    Example:
        >>> row = {"prompt": "2 + 2?", "answer1": "5", "answer2": "4", "pw": [{"selected": "right"}]}
        >>> LabelStudioMin()(row | {"annotation_id": 1, "lead_time": 2.5}).pairs
        (Pair(better=1, worse=0, probability=1.0, margin=0.0),)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = LabelStudio.label_kinds

    def recognises(self, row: Row) -> bool:
        """A prompt and responses beside columns about an annotation."""
        return {"annotation_id", "lead_time"} <= row.keys() and is_comparison(row)

    def join(self, rows: Iterable[LocatedRow]) -> Iterator[LocatedRow]:
        """A row for each task, with the votes of all its annotations."""
        for _, records in groupby(rows, _task_of):
            (place, first), *others = records
            if not isinstance(first, dict):
                yield place, first
                continue
            votes = [_vote_columns(first)]
            for _, row in others:
                votes.append(_vote_columns(row) if isinstance(row, dict) else {})
            yield place, {**first, VOTES: votes}

    def __call__(self, row: Row) -> Group:
        """A group of as many responses as there are."""
        if not is_comparison(row):
            raise Malformed("not a prompt and numbered responses")
        names = numbered_responses(row)
        votes: list[Places] = []
        read = {VOTES}
        for columns in row.get(VOTES) or [_vote_columns(row)]:
            column = _vote_column(columns, names)
            if column:
                votes += _places_of_value(columns[column], names)
                read.add(column)
        extra = other_fields(row, prompt_of(row), *names, *read)
        return group_of_votes(row, votes)._replace(extra=extra)


def annotator_votes(row: Row) -> list[AnnotatorVote]:
    """The votes of a row of either export, with who gave them; one at most of JSON_MIN."""
    votes: list[AnnotatorVote] = []
    if LabelStudioMin().recognises(row):
        names = numbered_responses(row)
        columns = _vote_columns(row)
        column = _vote_column(columns, names)
        for places in _places_of_value(columns[column], names) if column else []:
            votes.append(_annotator_vote(row, row.get("annotator"), places))
        return votes
    names = numbered_responses(row["data"])
    for annotation in list_field(row, "annotations"):
        for places in _votes_of_annotation(annotation, names):
            votes.append(_annotator_vote(annotation, annotation.get("completed_by"), places))
    return votes


def _annotator_vote(about: Row, user: Any, places: Places) -> AnnotatorVote:
    """The vote of a user, who is a number, a name, or an object with ``email`` or ``id``."""
    if isinstance(user, dict):
        user = user.get("email") or user.get("id")
    lead_time = about.get("lead_time")
    seconds = float(lead_time) if isinstance(lead_time, int | float) else 0.0
    return AnnotatorVote("" if user is None else str(user), places, seconds)


def _task_of(located: LocatedRow) -> tuple[Any, ...]:
    """What annotations of the same task have in common; a row without ``id`` is a task of its own."""
    place, row = located
    if not isinstance(row, dict) or row.get("id") is None:
        return (place,)
    texts = [str(row[name]) for name in (prompt_of(row), *numbered_responses(row)) if name]
    return ("task", str(row["id"]), *texts)


def _vote_columns(row: Row) -> Row:
    """The columns of an annotation that may hold its vote."""
    return other_fields(row, "id", prompt_of(row), *numbered_responses(row), *ABOUT_ANNOTATION)


def _vote_column(columns: Row, names: Sequence[str]) -> str:
    """The column with the vote: the only one of the tag Pairwise, or the only one that names a response."""
    selected: list[str] = []
    chosen: list[str] = []
    for name, value in columns.items():
        if _places_of_value(value, names):
            (selected if "selected" in str(value) else chosen).append(name)
    candidates = selected or chosen
    if len(candidates) > 1:
        raise SetAside(f"{' and '.join(candidates)} may all be the vote; keep one of them")
    return candidates[0] if candidates else ""


def _votes_of_annotation(annotation: Any, names: Sequence[str]) -> list[Places]:
    """The votes in an annotation of the JSON export."""
    if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
        return []
    votes: list[Places] = []
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        if isinstance(result, dict):
            votes += _places_of_value([result.get("value")], names)
    return votes


def _places_of_value(value: Any, names: Sequence[str]) -> list[Places]:
    """The vote in a value of the tags Pairwise and Choices, which CSV files have as text; empty if it is none."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        with suppress(ValueError):
            value = parse_literal(value)
    entry = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(entry, dict) and isinstance(entry.get("choices"), list):
        entry = entry["choices"][0] if len(entry["choices"]) == 1 else None
    if isinstance(entry, dict) and "selected" in entry:
        return [places_of_choice(_side(entry["selected"]), len(names))]
    if not isinstance(entry, str):
        return []
    name = entry.strip().lower()
    if name in SIDES and len(names) == len(SIDES):
        return [places_of_choice(SIDES[name], len(names))]
    columns = [column.lower() for column in names]
    return [places_of_choice(columns.index(name), len(names))] if name in columns else []


def _side(selected: Any) -> int | None:
    """The index of the response on the selected side; None for a tie."""
    side = str(selected).strip().lower()
    if side in TIES:
        return None
    if side not in SIDES:
        raise Malformed(f"'selected' is none of left, right and tie (got {side[:40]!r})")
    return SIDES[side]


@hookimpl
def register_formats(register: Register) -> None:
    """Register the formats."""
    register(LabelStudio)
    register(LabelStudioMin)
