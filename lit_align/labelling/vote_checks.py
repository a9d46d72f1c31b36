"""What a vote from a file must be like: a vote is never written over, so that a wrong one would stay."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from lit_align.labelling.votes import RETRACTED, TASK_KINDS, Vote
from lit_align.types import Group

NAME = re.compile(r"(?=.*\S)[^\x00-\x1f\ud800-\udfff]{1,100}")
"""What an annotator may be called."""
MAX_REVISION = 2**31 - 1
MAX_SECONDS = 10**9
LAST_TIME = 253_402_300_799
"""The end of the year 9999 in seconds since 1970: later times have no date."""
ANSWER_KEYS = {
    "compare": {"preference"},
    "rank": {"places"},
    "rate": {"rating", "flags"},
    "thumbs": {"up"},
}
SINGLE_KINDS = ("rate", "thumbs")
"""Kinds of tasks that are about one response."""


def check_vote(kind: str, vote: Vote) -> None:
    """Refuse a vote that the page could not have recorded; who voted is left to `NAME`.

    Raises:
        ValueError: naming what is wrong.
    """
    if kind not in TASK_KINDS or vote.verdict not in ("vote", "skip", *RETRACTED):
        raise ValueError(f"kind {kind!r} or verdict {vote.verdict!r} is unknown")
    if not is_integer(vote.task, -LAST_TIME, LAST_TIME):
        raise ValueError(f"'task' is {vote.task!r}, which is no whole number of a task")
    if not is_integer(vote.revision, 1, MAX_REVISION):
        raise ValueError(f"'revision' is {vote.revision!r}, which is not 1, 2, and so on")
    if vote.revision == 1 and vote.verdict in RETRACTED:
        raise ValueError(
            f"the verdict {vote.verdict!r} takes an answer back, and revision 1 has none before it"
        )
    for name, value, limit in (
        ("seconds", vote.seconds, MAX_SECONDS),
        ("at", vote.at, LAST_TIME),
    ):
        # comparisons with NaN are false
        if type(value) not in (int, float) or not 0 <= value <= limit:
            raise ValueError(f"{name!r} is {value!r}, which is no number from 0 to {limit}")
    if not isinstance(vote.note, str):
        raise ValueError("'note' is no text")
    _check_encodable("note", vote.note)
    if vote.verdict == "vote":
        check_answer(kind, vote.answer, len(vote.shown))
    elif vote.answer != {}:
        raise ValueError(
            f"the verdict {vote.verdict!r} has the answer {vote.answer!r}; it has none"
        )


def check_members(kind: str, group: Group, members: Sequence[int], shown: Sequence[int]) -> None:
    """Refuse indices that are not those of the responses of such a task.

    Raises:
        ValueError: naming what is wrong.
    """
    last = len(group.responses) - 1
    are_indices = all(is_integer(index, 0, last) for index in (*members, *shown))
    if not are_indices or sorted(shown) != list(members) or len(set(members)) < len(members):
        raise ValueError("'shown' and 'members' are not the same responses of the row")
    num_members = len(members)
    is_right = num_members == 1 if kind in SINGLE_KINDS else num_members > 1
    if not is_right or (kind == "compare" and num_members != 2):
        raise ValueError(f"{num_members} responses are not those of a task of the kind {kind}")


def check_answer(kind: str, answer: Any, num_shown: int, is_gold: bool = False) -> None:
    """Refuse an answer that the page could not have recorded.

    Args:
        kind: how the task is answered.
        answer: the answer.
        num_shown: responses that the task is about.
        is_gold: whether it is a known answer, whose numbers are those of its row.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(answer, dict) or not _is_answer(kind, answer, num_shown, is_gold):
        raise ValueError(f"{answer!r} is no answer to a task of the kind {kind}")
    _check_encodable("answer", json.dumps(answer, ensure_ascii=False))


def _is_answer(kind: str, answer: dict[str, Any], num_shown: int, is_gold: bool) -> bool:
    optional = {"graded"} if kind == "compare" else set()
    if answer.keys() - optional != ANSWER_KEYS[kind]:
        return False
    if kind == "compare":
        is_graded = answer.get("graded", True)
        return is_integer(answer["preference"], -3, 3) and isinstance(is_graded, bool)
    if kind == "thumbs":
        return isinstance(answer["up"], bool)
    if kind == "rate":
        limits = (-LAST_TIME, LAST_TIME) if is_gold else (1, 7)
        flags = answer["flags"]
        are_flags = isinstance(flags, dict) and all(
            isinstance(is_raised, bool) for is_raised in flags.values()
        )
        return is_integer(answer["rating"], *limits) and are_flags
    places = answer["places"]
    if not isinstance(places, list) or len(places) != num_shown:
        return False
    last_place = LAST_TIME if is_gold else num_shown
    return all(is_integer(place, 1, last_place) for place in places)


def is_integer(value: Any, least: int, most: int) -> bool:
    """Whether a value of JSON is a whole number between these, written as one: neither ``true`` nor ``1.0``."""
    return type(value) is int and least <= value <= most


def _check_encodable(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} has half of a surrogate pair") from error
