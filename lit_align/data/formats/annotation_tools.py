"""Exports of annotation tools: comparisons from Argilla and from Label Studio, decided by the majority."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    check_prompt,
    check_response,
    check_same_type,
    list_field,
    other_fields,
    text_or_messages,
)
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, LabelKind, Pair

PROMPTS = ("prompt", "instruction", "question", "query", "input", "context")
RESPONSES = re.compile(
    r"(response|reply|answer|completion|generation|output|text)[-_ ]?([0-9ab])", re.I
)
TIES = {"tie", "both", "equal", "same", "neither", "none"}
SIDES = {"left": 0, "right": 1}
COMPARED = frozenset({LabelKind.PAIRS, LabelKind.DEMONSTRATIONS})


@dataclass(frozen=True)
class Argilla(Format):
    """A prompt, two responses such as ``response1`` and ``response2``, and votes in ``QUESTION.responses``.

    The layout of https://docs.argilla.io/latest/ from version 2. A vote is the name of a column, its last letter, or a
    ranking of columns; only submitted ones count. The probability is the majority's share of the votes that are no tie.

    Example:
        >>> row = {"prompt": "2 + 2?", "response1": "5", "response2": "4", "better.responses": ["response2"]}
        >>> Argilla()(row).pairs
        (Pair(better=1, worse=0, probability=1.0, margin=0.0),)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = COMPARED

    def recognises(self, row: Row) -> bool:
        """A prompt, two numbered responses, and one question about them."""
        names = _numbered(row)
        return _prompt_of(row) != "" and len(names) == 2 and _question_of(row, names) != ""

    def __call__(self, row: Row) -> Group:
        """A group of two responses."""
        prompt_name, names = _prompt_of(row), _numbered(row)
        question = _question_of(row, names)
        if not prompt_name or len(names) != 2 or not question:
            raise Malformed("not a prompt, two responses and one question about them")
        votes = [_side(vote, names) for vote in _submitted(row, question)]
        group = _majority_group(row, prompt_name, names, votes)
        read = (f"{question}.responses", f"{question}.responses.status")
        return group._replace(extra=other_fields(row, prompt_name, *names, *read))


@dataclass(frozen=True)
class LabelStudio(Format):
    """Columns ``data`` (a prompt and two responses such as ``answer1`` and ``answer2``) and ``annotations``.

    The JSON export of https://labelstud.io/templates/pairwise_comparison; the left response is the first one. Cancelled
    annotations do not count, and the probability is the majority's share.

    Example:
        >>> data = {"prompt": "2 + 2?", "answer1": "5", "answer2": "4"}
        >>> annotations = [{"result": [{"type": "pairwise", "value": {"selected": "right"}}]}]
        >>> LabelStudio()({"data": data, "annotations": annotations}).pairs
        (Pair(better=1, worse=0, probability=1.0, margin=0.0),)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = COMPARED

    def recognises(self, row: Row) -> bool:
        """``data`` with a prompt and two responses, and ``annotations``."""
        data = row.get("data")
        is_task = isinstance(data, dict) and isinstance(row.get("annotations"), list)
        return is_task and _prompt_of(data or {}) != "" and len(_numbered(data or {})) == 2

    def __call__(self, row: Row) -> Group:
        """A group of two responses."""
        data = row.get("data")
        if not isinstance(data, dict):
            raise Malformed("'data' is not an object")
        prompt_name, names = _prompt_of(data), _numbered(data)
        if not prompt_name or len(names) != 2:
            raise Malformed("'data' is not a prompt and two responses")
        votes: list[int | None] = []
        for annotation in list_field(row, "annotations"):
            votes += _selected(annotation)
        group = _majority_group(data, prompt_name, names, votes)
        extra = {
            **other_fields(row, "data", "annotations"),
            **other_fields(data, prompt_name, *names),
        }
        return group._replace(extra=extra)


def _majority_group(
    row: Row, prompt_name: str, names: Sequence[str], votes: Sequence[int | None]
) -> Group:
    """A group of two responses and the vote of the majority.

    Args:
        row: with the texts.
        prompt_name: the column with the prompt.
        names: the columns with the responses.
        votes: index of the preferred response; None for a tie.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    if not votes:
        raise SetAside("no vote")
    if counts[0] == counts[1]:
        raise SetAside("no majority")
    prompt = check_prompt(text_or_messages(row, prompt_name))
    responses = [check_response(text_or_messages(row, name)) for name in names]
    for name, response in zip(names, responses, strict=True):
        check_same_type(prompt, response, prompt_name, name)
    if responses[0] == responses[1]:
        raise Malformed("chosen equals rejected")
    better = int(counts[1] > counts[0])
    probability = counts[better] / counts.total()
    return Group(prompt, responses, (Pair(better, 1 - better, probability),))


def _prompt_of(row: Row) -> str:
    """The column with the prompt; empty if there is none."""
    return next((name for name in PROMPTS if row.get(name)), "")


def _numbered(row: Row) -> list[str]:
    """The columns with numbered responses, in order."""
    return sorted(name for name in row if RESPONSES.fullmatch(name))


def _question_of(row: Row, names: Sequence[str]) -> str:
    """Argilla's one question whose responses name columns with responses; empty if there are none or several."""
    questions = []
    for column, votes in row.items():
        if column.endswith(".responses") and isinstance(votes, list):
            with suppress(Malformed):
                for vote in votes:
                    _side(vote, names)
                questions.append(column.removesuffix(".responses"))
    return questions[0] if len(questions) == 1 else ""


def _submitted(row: Row, question: str) -> list[Any]:
    """The responses to a question that were submitted."""
    votes = list_field(row, f"{question}.responses")
    statuses = row.get(f"{question}.responses.status") or ["submitted"] * len(votes)
    if len(statuses) != len(votes):
        raise Malformed(f"'{question}.responses.status' is not one for each response")
    submitted = []
    for vote, status in zip(votes, statuses, strict=True):
        if status == "submitted":
            submitted.append(vote)
    return submitted


def _side(vote: Any, names: Sequence[str]) -> int | None:
    """The index of the response that a vote names; None for a tie."""
    if isinstance(vote, list) and vote:
        return _first_of_ranking(vote, names)
    name = str(vote).strip().lower()
    if name in TIES:
        return None
    for index, column in enumerate(names):
        if name in (column.lower(), column[-1].lower()):
            return index
    raise Malformed(f"the vote {str(vote)[:40]!r} names neither {names[0]} nor {names[1]}")


def _first_of_ranking(ranking: Sequence[Any], names: Sequence[str]) -> int | None:
    """The first response of a ranking: names in order, or objects with ``value`` and ``rank``."""
    if not all(isinstance(entry, dict) for entry in ranking):
        return _side(ranking[0], names)
    places = {str(entry.get("value")): entry.get("rank") for entry in ranking}
    if len(set(places.values())) == 1:
        return None
    best = min(ranking, key=lambda entry: float(entry.get("rank") or 0))
    return _side(best.get("value"), names)


def _selected(annotation: Any) -> list[int | None]:
    """The sides that were selected in an annotation of Label Studio."""
    if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
        return []
    votes: list[int | None] = []
    for result in annotation.get("result") or []:
        value = result.get("value") if isinstance(result, dict) else None
        if isinstance(value, dict) and "selected" in value:
            votes.append(SIDES.get(str(value["selected"])))
    return votes


@hookimpl
def register_formats(register: Register) -> None:
    """Register the formats."""
    register(Argilla)
    register(LabelStudio)
