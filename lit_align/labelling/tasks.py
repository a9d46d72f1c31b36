"""From rows to what is asked about them, and what a row already says of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from lit_align.batches import Group
from lit_align.data.formats import Format, recognise
from lit_align.data.ledger import Ledger
from lit_align.data.prepare import ranked
from lit_align.data.read import read
from lit_align.errors import ConfigError, Malformed, SetAside

MAX_LOST = 0.01


def load(paths: Sequence[str], formats: Sequence[Format]) -> list[Group]:
    """Every sound row of ``paths``, with what became of the others on the screen.

    Raises:
        DataError: if a path cannot be read, or more than 1 % of the rows are malformed.
    """
    ledger, groups = Ledger(", ".join(paths)), list[Group]()
    for path in paths:
        layout = None
        for source, row in read(path):
            ledger.rows += 1
            try:
                if isinstance(row, Malformed):
                    raise row
                layout = layout or recognise(row, formats)
                groups.append(layout(row)._replace(source=source))
                ledger.add(source, "kept")
            except (Malformed, SetAside) as reason:
                ledger.add(source, "malformed" if isinstance(reason, Malformed) else "set aside", str(reason))
    print(ledger.table())
    ledger.check(MAX_LOST)
    return groups


def questions(group: Group, kind: str) -> list[tuple[int, ...]]:
    """The responses of each task: two of them, all of them, or one after the other.

    Example:
        >>> questions(Group("2 + 2?", ["4", "four", "5"]), "compare")
        [(0, 1), (0, 2), (1, 2)]
    """
    every = range(len(group.responses))
    return list(combinations(every, {"compare": 2, "rank": max(2, len(every))}.get(kind, 1)))


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
            f"{group.source} has {found!r} in the column {column!r}; order: disagreement needs a number there"
        ) from error
