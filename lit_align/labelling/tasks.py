"""From rows to what is asked about them, and what a row already says of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from lit_align.batches import Group
from lit_align.data.prepare import ranked
from lit_align.errors import ConfigError, SetAside


def questions(group: Group, kind: str) -> list[tuple[int, ...]]:
    """The responses of each task: two of them, all of them, or one after the other; none where all say the same.

    Example:
        >>> questions(Group("2 + 2?", ["4", "four", "5"]), "compare")
        [(0, 1), (0, 2), (1, 2)]
    """
    every = range(len(group.responses))
    some = combinations(every, {"compare": 2, "rank": max(2, len(every))}.get(kind, 1))
    return [one for one in some if len(one) == 1 or any(group.responses[i] != group.responses[one[0]] for i in one)]


def known(group: Group, kind: str, members: tuple[int, ...]) -> dict[str, Any] | None:
    """The answer that the row's own labels give, with the responses as they are; None if they give none."""
    if kind == "thumbs":
        return {"up": group.desirable[members[0]]} if group.desirable else None
    if kind == "rate":
        rating = group.ratings[members[0]].get("rating") if group.ratings else None
        return None if rating is None else {"rating": round(rating), "flags": {}}
    try:
        places = [ranked(group).ranking[i] for i in members]
    except SetAside:
        return None
    if not all(places) or len(set(places)) == 1:
        return None
    return {"places": places} if kind == "rank" else {"preference": 1 if places[1] < places[0] else -1}


def urgency(group: Group, column: str) -> float:
    """How unsure a judge was of the row; tasks come by it, the largest first.

    Raises:
        ConfigError: if the row does not say.
    """
    try:
        return float(group.extra[column])
    except (KeyError, TypeError, ValueError) as error:
        found = group.extra.get(column)
        raise ConfigError(
            f"{group.source} has {found!r} in the column {column!r}; uncertainty needs a number there"
        ) from error
