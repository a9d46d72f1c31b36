"""From rows to what is asked about them, and what a row already says of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from lit_align.batches import Group
from lit_align.data.formats import Format, recognise
from lit_align.data.ledger import Ledger
from lit_align.data.prepare import likelier
from lit_align.data.read import read
from lit_align.errors import ConfigError, Malformed, SetAside

MAX_LOST = 0.01


def load(paths: Sequence[str], formats: Sequence[Format]) -> tuple[list[Group], Ledger]:
    """Every sound row of ``paths``.

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
            except Malformed as reason:
                ledger.add(source, "malformed", str(reason))
            except SetAside as reason:
                ledger.add(source, "set aside", str(reason))
    ledger.check(MAX_LOST)
    return groups, ledger


def questions(group: Group, kind: str) -> list[tuple[int, ...]]:
    """The responses of each task: two of them, all of them, or one after the other.

    Example:
        >>> questions(Group("2 + 2?", ["4", "four", "5"]), "compare")
        [(0, 1), (0, 2), (1, 2)]
    """
    every = range(len(group.responses))
    if kind == "compare":
        return list(combinations(every, 2))
    if kind == "rank":
        return [tuple(every)] if len(every) > 1 else []
    return [(i,) for i in every]


def known(group: Group, kind: str, members: tuple[int, ...]) -> dict[str, Any] | None:
    """The answer that the row's own labels give, in the words of a vote; None if they give none."""
    better = {(pair.better, pair.worse) for pair in likelier(group.pairs)}
    first, last = members[0], members[-1]
    ahead, behind = (first, last) in better, (last, first) in better
    if kind in ("compare", "rank") and len(members) == 2 and ahead != behind:
        return _compared(kind, members, (1, 2) if ahead else (2, 1))
    if kind in ("compare", "rank") and group.ranking and all(group.ranking):
        return _compared(kind, members, [group.ranking[i] for i in members])
    if kind == "thumbs" and group.desirable:
        return {"up": group.desirable[first]}
    if kind == "rate" and group.ratings and "rating" in group.ratings[first]:
        return {"rating": round(group.ratings[first]["rating"]), "flags": {}}
    return None


def _compared(kind: str, members: Sequence[int], places: Sequence[int]) -> dict[str, Any] | None:
    if kind == "rank":
        return {"places": list(places)}
    return None if places[0] == places[1] else {"better": members[places[1] < places[0]], "strength": 1}


def urgency(group: Group, column: str) -> float:
    """How unsure a judge was of the row; tasks come by it, the largest first.

    Raises:
        ConfigError: if the row does not say.
    """
    value = group.extra.get(column)
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ConfigError(
            f"{group.source} has {value!r} in the column {column!r}; order: disagreement needs a number there"
        ) from None
