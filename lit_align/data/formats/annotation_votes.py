"""What exports of annotation tools have in common: a prompt, numbered responses, and votes of several annotators."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from lit_align.data.formats.base import Row
from lit_align.data.formats.fields import (
    check_prompt,
    check_response,
    check_same_type,
    first_filled,
    number,
    text_or_messages,
)
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, Pair

PROMPTS = ("prompt", "instruction", "question", "query", "input", "context")
RESPONSES = re.compile(
    r"(?i:response|reply|answer|completion|generation|output|text)[-_ ]?"
    r"([0-9]{1,2}|(?<=[-_ ])[A-Za-z]|[A-RT-Z])"  # an S without a separator makes a plural
)
TIES = {"tie", "both", "equal", "same", "neither", "none"}

Places = tuple[float, ...]
"""A vote: the place of each response, lower for a better one; equal places are a tie."""


class AnnotatorVote(NamedTuple):
    """A vote, and who gave it.

    Args:
        annotator: name or number of who voted; empty if the row does not say.
        places: the vote.
        seconds: time that it took; 0 if the row does not say.
    """

    annotator: str
    places: Places
    seconds: float = 0.0


def prompt_of(row: Row) -> str:
    """The column with the prompt; empty if there is none."""
    return first_filled(row, PROMPTS)


def numbered_responses(row: Row) -> list[str]:
    """The columns with numbered or lettered responses that hold something, in order."""
    names = [name for name in row if RESPONSES.fullmatch(name) and row[name]]
    return sorted(names, key=lambda name: (len(name), name))


def is_comparison(row: Row) -> bool:
    """Whether a row has a prompt and at least two numbered responses."""
    return prompt_of(row) != "" and len(numbered_responses(row)) > 1


def places_of_choice(better: int | None, num_responses: int) -> Places:
    """The vote for one response over all others; None is a tie of all.

    Example:
        >>> places_of_choice(1, 3)
        (2, 1, 2)
    """
    return tuple(1 if index == better else 2 for index in range(num_responses))


def parse_vote(vote: Any, names: Sequence[str]) -> Places:
    """The places of the responses in a vote: the name of one, its number or letter, or a ranking of all.

    Args:
        vote: as the tool wrote it; a ranking is a list of names, or of objects with ``value`` and ``rank``.
        names: the columns with the responses.

    Raises:
        Malformed: if the vote names something else.
    """
    if isinstance(vote, list):
        return _places_of_ranking(vote, names)
    if vote is None:
        raise Malformed("a vote is null")
    name = str(vote).strip().lower()
    if name in TIES:
        return places_of_choice(None, len(names))
    return places_of_choice(_index(name, names), len(names))


def group_of_votes(row: Row, votes: Sequence[Places]) -> Group:
    """A group with a comparison of each two responses on which the votes have a majority.

    The probability of a comparison is the majority's share of the votes that are no tie.

    Args:
        row: with a prompt and numbered responses.
        votes: of the annotators.

    Raises:
        SetAside: if there is no vote, or no majority about any two.
    """
    prompt_name, names = prompt_of(row), numbered_responses(row)
    if not votes:
        raise SetAside("no vote")
    pairs = majority_pairs(votes)
    if not pairs:
        raise SetAside("no majority")
    prompt = check_prompt(text_or_messages(row, prompt_name))
    responses = [check_response(text_or_messages(row, name)) for name in names]
    for name, response in zip(names, responses, strict=True):
        check_same_type(prompt, response, prompt_name, name)
    if any(responses[pair.better] == responses[pair.worse] for pair in pairs):
        raise Malformed("chosen equals rejected")
    return Group(prompt, responses, pairs)


def majority_pairs(votes: Sequence[Places]) -> tuple[Pair, ...]:
    """The comparisons that a majority of the votes agrees on.

    Example:
        >>> majority_pairs([(2, 1), (2, 1), (1, 2)])[0]._replace(probability=2 / 3) == Pair(1, 0, 2 / 3)
        True
    """
    pairs = []
    for first, second in combinations(range(len(votes[0])), 2):
        for_first = sum(places[first] < places[second] for places in votes)
        for_second = sum(places[second] < places[first] for places in votes)
        share = max(for_first, for_second) / max(for_first + for_second, 1)
        if for_first > for_second:
            pairs.append(Pair(first, second, share))
        elif for_second > for_first:
            pairs.append(Pair(second, first, share))
    return tuple(pairs)


def _index(name: str, names: Sequence[str]) -> int:
    for index, column in enumerate(names):
        match = RESPONSES.fullmatch(column)
        ending = match[1] if match else ""
        if name in (column.lower(), ending.lower()):
            return index
    raise Malformed(f"the vote {name[:40]!r} names none of {', '.join(names)}")


def _places_of_ranking(ranking: Sequence[Any], names: Sequence[str]) -> Places:
    """The places in a ranking; a response that it leaves out is worse than all in it."""
    if not ranking:
        raise Malformed("a vote is an empty ranking")
    places = [float(len(ranking) + 1)] * len(names)
    for position, entry in enumerate(ranking, 1):
        name, rank = entry, float(position)
        if isinstance(entry, dict):
            name, rank = entry.get("value"), number(entry.get("rank"), "a rank")
        places[_index(str(name).strip().lower(), names)] = rank
    return tuple(places)
