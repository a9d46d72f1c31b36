"""Comparisons annotated in Argilla: https://docs.argilla.io/latest/how_to_guides/import_export/."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lit_align import Register, hookimpl
from lit_align.data.formats.annotation_votes import (
    RESPONSES,
    AnnotatorVote,
    group_of_votes,
    is_comparison,
    numbered_responses,
    parse_vote,
    prompt_of,
)
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import other_fields
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, LabelKind

SUFFIX = ".responses"
PREFERRING = frozenset(
    {
        "best",
        "better",
        "choice",
        "chosen",
        "preference",
        "preferred",
        "ranking",
        "which",
        "winner",
    }
)
"""Words in the name of a question whose answers may be the number or letter of a response."""
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


UNFINISHED = (
    "a pending record whose answers have no status: drafts or discarded, unless several people have to answer; "
    "export with records.to_list(flatten=True), which keeps the status of each"
)
UNKNOWN_STATUS = (
    "several answers without a status, all of which count though some may be drafts or discarded; "
    "export with records.to_list(flatten=True), which keeps the status of each"
)


class Vote(NamedTuple):
    """What an annotator answered, whether the answer was submitted, and who that was."""

    value: Any
    status: str
    user: str = ""


@dataclass(frozen=True)
class Argilla(Format):
    """A prompt, responses such as ``response1`` and ``response2``, and votes in ``QUESTION.responses``.

    The flat export of version 2 of Argilla, and the nested one with ``fields`` and ``responses``. A vote is the name of
    a column, or a ranking of columns; or its number or letter where the question's name, such as ``better``, says so,
    and no other question has names. Only submitted ones count, and suggestions do not. ``records.to_json`` and the
    nested ``to_list`` of Argilla 2.8 leave out which answers were submitted: a pending record of theirs is set aside,
    and the ledger notes where several answers were counted. The probability is the majority's share of the votes that
    are no tie.

    Example:
        >>> row = {"prompt": "2 + 2?", "response1": "5", "response2": "4", "better.responses": ["response2"]}
        >>> Argilla()(row).pairs
        (Pair(better=1, worse=0, probability=1.0, margin=0.0),)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """A prompt, numbered responses, and a question about them."""
        fields = _fields(row)
        return is_comparison(fields) and bool(_questions(row, fields))

    def __call__(self, row: Row) -> Group:
        """A group of as many responses as there are columns with one."""
        fields = _fields(row)
        if not is_comparison(fields):
            raise Malformed("not a prompt and numbered responses")
        questions = _questions(row, fields)
        if not questions:
            raise SetAside("no vote")
        if len(questions) > 1:
            raise SetAside(
                f"{' and '.join(questions)} are all questions about the responses; keep the votes of one"
            )
        question = questions[0]
        if is_unfinished(row, question):
            raise SetAside(UNFINISHED)
        names = numbered_responses(fields)
        votes = []
        for vote in _votes(row, question):
            if vote.status == "submitted":
                votes.append(parse_vote(vote.value, names))
        group = group_of_votes(fields, votes)
        return group._replace(extra=_unread(row, fields, question))

    def note(self, row: Row) -> str:
        """That answers were counted which may not have been submitted."""
        for question in _questions(row, _fields(row)):
            if _lacks_statuses(row, question) and len(row["responses"][question]) > 1:
                return UNKNOWN_STATUS
        return ""


def is_unfinished(row: Row, question: str) -> bool:
    """Whether a nested row says that its record still waits for answers, and not which of these were submitted."""
    return row.get("status") == "pending" and _lacks_statuses(row, question)


def _lacks_statuses(row: Row, question: str) -> bool:
    """Whether a row of the nested export has answers, none of them with a status."""
    nested = row.get("responses")
    answers = nested.get(question) if isinstance(nested, dict) else None
    if not isinstance(answers, list) or not answers:
        return False
    return not any(isinstance(answer, dict) and answer.get("status") for answer in answers)


def preference_questions(row: Row) -> list[str]:
    """The questions whose answers in this row prefer a response; none where all answers are ties."""
    fields = _fields(row)
    return _questions(row, fields) if is_comparison(fields) else []


def annotator_votes(row: Row, question: str) -> list[AnnotatorVote]:
    """The submitted answers to a question, with who gave them; none if nobody has answered it.

    Raises:
        Malformed: if an answer names no response.
    """
    nested = row.get("responses")
    is_nested = isinstance(nested, dict) and question in nested
    if not is_nested and row.get(f"{question}{SUFFIX}") is None:
        return []
    names = numbered_responses(_fields(row))
    votes = []
    for vote in _votes(row, question):
        if vote.status == "submitted":
            votes.append(AnnotatorVote(vote.user, parse_vote(vote.value, names)))
    return votes


def _fields(row: Row) -> Row:
    """The columns with the texts: nested in ``fields``, or the row itself."""
    fields = row.get("fields")
    return fields if isinstance(fields, dict) else row


def _questions(row: Row, fields: Row) -> list[str]:
    """The questions that were answered with names of the responses; without such, with their numbers or letters."""
    nested = row.get("responses")
    candidates = list(nested) if fields is not row and isinstance(nested, dict) else []
    if fields is row:
        candidates = [name.removesuffix(SUFFIX) for name in row if name.endswith(SUFFIX)]
    names = numbered_responses(fields)
    named: list[str] = []
    numbered: list[str] = []
    for question in candidates:
        preferring = _preferring_answers(row, question, names)
        if any(_is_named(answer) for answer in preferring):
            named.append(question)
        elif preferring and _asks_for_preference(question):
            numbered.append(question)
    return named or numbered


def _preferring_answers(row: Row, question: str, names: Sequence[str]) -> list[Any]:
    """The answers to a question that prefer a response; a single bad answer is an error of its row."""
    answers = []
    with suppress(Malformed):
        for vote in _votes(row, question):
            with suppress(Malformed):
                if len(set(parse_vote(vote.value, names))) > 1:
                    answers.append(vote.value)
    return answers


def _is_named(answer: Any) -> bool:
    """Whether an answer has names of columns, or ranks; a bare number or letter may be a grade."""
    if isinstance(answer, list):
        return any(isinstance(entry, dict) or _is_named(entry) for entry in answer)
    return RESPONSES.fullmatch(str(answer).strip()) is not None


def _asks_for_preference(question: str) -> bool:
    """Whether the name of a question says that its answers prefer a response.

    Example:
        >>> _asks_for_preference("better_response"), _asks_for_preference("difficulty")
        (True, False)
    """
    words = [word.lower() for word in WORDS.findall(question)]
    return not PREFERRING.isdisjoint(words)


def _votes(row: Row, question: str) -> list[Vote]:
    """The answers to a question; those of an export without statuses were submitted."""
    nested = row.get("responses")
    if isinstance(nested, dict) and question in nested:
        answers = nested[question] if isinstance(nested[question], list) else []
        votes = []
        for answer in answers:
            if not isinstance(answer, dict):
                raise Malformed(f"an answer to '{question}' is no object with 'value'")
            user = str(answer.get("user_id") or "")
            votes.append(Vote(answer.get("value"), answer.get("status") or "submitted", user))
        return votes
    values = row.get(f"{question}{SUFFIX}")
    if not isinstance(values, list):
        raise Malformed(f"'{question}{SUFFIX}' is not a list")
    statuses = row.get(f"{question}{SUFFIX}.status") or ["submitted"] * len(values)
    if not isinstance(statuses, list) or len(statuses) != len(values):
        raise Malformed(f"'{question}{SUFFIX}.status' is not one for each response")
    users = row.get(f"{question}{SUFFIX}.users") or [""] * len(values)
    if not isinstance(users, list) or len(users) != len(values):
        raise Malformed(f"'{question}{SUFFIX}.users' is not one for each response")
    answers = zip(values, statuses, users, strict=True)
    return [Vote(value, status or "submitted", str(user or "")) for value, status, user in answers]


def _unread(row: Row, fields: Row, question: str) -> Row:
    """The columns that are not read; those inside ``responses`` and ``metadata`` under their own names."""
    names = (prompt_of(fields), *numbered_responses(fields))
    if fields is row:
        return other_fields(row, *names, f"{question}{SUFFIX}", f"{question}{SUFFIX}.status")
    others = other_fields(row, "fields", "responses")
    answers = {}
    for other, answer in row["responses"].items():
        if other != question:
            answers[f"{other}{SUFFIX}"] = answer
    return {**others, **answers, **other_fields(fields, *names)}


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Argilla)
