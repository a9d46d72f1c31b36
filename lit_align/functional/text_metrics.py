"""Figures about answers as text: are they short, do they differ, are they right, do they admit what cannot be known?"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: how people say that they cannot know; matched in lower case with plain apostrophes
ABSTAINS = re.compile(
    r"\b(?:can't|cannot|couldn't|could not|don't|do not|won't|no way (?:of|to)|(?:un|not )able to|impossible to)"
    r" (?:\w+ ){0,2}?"
    r"(?:know|knowing|see|seeing|tell|telling|say|saying|hear|predict|access|guess|read|look|check|find out)\b"
    r"|\bno(?:body|t even| one| assistant)?(?: \w+)? (?:can|could) (?:know|tell|say|predict)\b"
    r"|\b(?:is|are|was) (?:unknown|unknowable|not known|not something i)\b|\bonly you (?:know|can)\b"
    r"|\bi have no (?:way|idea|access|view|record|sight|knowledge)\b"
)


def is_short(answer: str, words: int = 30) -> bool:
    """Whether an answer holds at least one word and at most ``words``.

    Example:
        >>> is_short("Paris."), is_short(""), is_short("well " * 31)
        (True, False, False)
    """
    return 0 < len(answer.split()) <= words


def abstains(answer: str) -> bool:
    """Whether an answer says that the thing cannot be known.

    Example:
        >>> abstains("I can't see your kitchen, so I don't know."), abstains("It is in the kitchen.")
        (True, False)
    """
    return (
        ABSTAINS.search(answer.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) is not None
    )


def contains_keywords(answer: str, keywords: Sequence[str]) -> bool:
    """Whether an answer holds every key word; ``"a|b"`` is satisfied by either.

    Example:
        >>> contains_keywords("It boils at 100 degrees.", ["100|hundred", "degree"]), contains_keywords("It boils.", ["100|hundred"])
        (True, False)
    """
    text = answer.lower()
    return all(any(word in text for word in keyword.lower().split("|")) for keyword in keywords)


def distinct_share(answers: Sequence[str]) -> float:
    """Share of different answers, case and spacing aside.

    Example:
        >>> distinct_share(["I don't know.", "i  don't know.", "Blue."])
        0.6666666666666666
    """
    return len({" ".join(answer.lower().split()) for answer in answers}) / max(len(answers), 1)


def true_share(flags: Sequence[bool]) -> float | None:
    """Share of true flags; None when there are none to ask.

    Example:
        >>> true_share([True, False]), true_share([])
        (0.5, None)
    """
    return sum(flags) / len(flags) if flags else None
