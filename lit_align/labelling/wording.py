"""Answers in words, as annotators and admins read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lit_align.labelling.languages import Words, read_language

VERDICTS = {"skip": "skipped", "undo": "taken back", "removed": "removed by an admin"}


def describe_answer(
    kind: str,
    answer: Mapping[str, Any],
    names: Sequence[str],
    flags: Mapping[str, str] | None = None,
    words: Words | None = None,
) -> str:
    """An answer in words.

    Args:
        kind: how the task is answered.
        answer: the answer, about the responses as shown.
        names: what the responses are called, in the order in which they were shown.
        flags: the words of the problems that a rated response may have.
        words: of the language; English if left out.

    Example:
        >>> describe_answer("compare", {"preference": -3}, ["Answer 1", "Answer 2"])
        'Answer 1 is much better'
        >>> describe_answer("rank", {"places": [2, 1, 2]}, ["A", "B", "C"])
        'B, then A and C'
    """
    words = words or read_language("en")
    if kind == "compare":
        return _describe_preference(answer, names, words)
    if kind == "rank":
        return _describe_places(answer["places"], names, words)
    if kind == "thumbs":
        return words.text("described_up" if answer["up"] else "described_down")
    rating = words.text("described_rating", rating=answer["rating"])
    problems = []
    for flag, is_raised in answer.get("flags", {}).items():
        if is_raised:
            problems.append((flags or {}).get(flag, flag))
    if not problems:
        return rating
    joined = words.table["flags_joint"].join(problems)
    return words.text("described_flags", rating=rating, flags=joined)


def _describe_preference(answer: Mapping[str, Any], names: Sequence[str], words: Words) -> str:
    preference = answer["preference"]
    if preference == 0:
        return words.text("described_tie")
    better = names[0] if preference < 0 else names[1]
    if not answer.get("graded", True):
        return words.text("described_preference", answer=better)
    subject = words.text("subject", answer=better)
    return f"{subject} {words.text(f'strength_{abs(preference)}')}"


def _describe_places(places: Sequence[int], names: Sequence[str], words: Words) -> str:
    """The names from the best to the worst; equal places stand together."""
    tiers = []
    for place in sorted(set(places)):
        tier = [name for name, own_place in zip(names, places, strict=True) if own_place == place]
        tiers.append(words.table["ties_joint"].join(tier))
    return words.table["places_joint"].join(tiers)


def format_time(seconds: float) -> str:
    """A time in seconds since 1970, in UTC.

    Example:
        >>> format_time(1_700_000_000)
        '2023-11-14 22:13 UTC'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
