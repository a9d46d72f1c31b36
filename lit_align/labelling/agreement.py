"""How far annotators agree, whether the place on the page sways them, and how each of them works."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import median
from typing import Any, NamedTuple

import krippendorff
import numpy as np

from lit_align.labelling.aggregation import (
    KINDS,
    Ballots,
    Label,
    Vote,
    by_item,
    labels,
    reliability,
)


class Agreement(NamedTuple):
    """Figures of agreement; NaN where there is too little to tell.

    ``raw`` is how often two answers to an item are the same; ``cohen`` the mean κ of pairs of annotators, weighed by
    the items they share; ``fleiss`` κ of the items that have as many answers as most have, the fewer if in doubt;
    ``alpha`` that of Krippendorff, of all items, ordinal for ratings.
    """

    raw: float
    cohen: float
    fleiss: float
    alpha: float


def agreement(given: Sequence[Label], ordinal: bool = False) -> Agreement:
    """Figures of judgments of one kind.

    Example:
        >>> both = [Label((task, 0, 1), who, 1 - 2 * (task % 2)) for task in range(4) for who in "ab"]
        >>> agreement(both)
        Agreement(raw=1.0, cohen=1.0, fleiss=1.0, alpha=1.0)
    """
    items, values = by_item(given).values(), sorted({label.value for label in given})
    counts = np.array([[sum(one.value == value for one in of) for value in values] for of in items])
    counts = counts.reshape(len(items), len(values))
    votes, alpha = counts.sum(1), math.nan
    if counts[votes > 1].any(0).sum() > 1:
        alpha = float(krippendorff.alpha(None, counts, values, "ordinal" if ordinal else "nominal"))
    same, pairs = (counts * (counts - 1)).sum(), (votes * (votes - 1)).sum()
    return Agreement(_ratio(same, pairs), _cohen(items), _fleiss(counts), alpha)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _cohen(items: Iterable[list[Label]]) -> float:
    """κ = (observed - expected) / (1 - expected) of each pair; two who only ever say one thing have none."""
    shared: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for of in items:
        for one, other in combinations(sorted(of, key=lambda label: label.annotator), 2):
            shared[one.annotator, other.annotator].append((one.value, other.value))
    total, count = 0.0, 0
    for both in shared.values():
        first, second = (Counter(column) for column in zip(*both, strict=True))
        expected = sum(first[value] * second[value] for value in first) / len(both)
        if expected < len(both):
            total += len(both) * (sum(a == b for a, b in both) - expected) / (len(both) - expected)
            count += len(both)
    return _ratio(total, count)


def _fleiss(counts: Any) -> float:
    """Fleiss, 1971, https://doi.org/10.1037/h0031619; ``counts`` is ``[items, values]``."""
    votes = counts.sum(1)
    if not (votes > 1).any():
        return math.nan
    n = int(np.bincount(votes[votes > 1]).argmax())
    table = counts[votes == n]
    observed = ((table**2).sum() - table.sum()) / (len(table) * n * (n - 1))
    expected = ((table.sum(0) / table.sum()) ** 2).sum()
    return _ratio(observed - expected, 1 - expected)


def position_bias(ballots: Ballots) -> tuple[float, float, int]:
    """Share of comparisons that went to the response shown first, its standard error from one half, and how many.

    Ties are left out. Without a bias the share is one half, whatever the responses, as the order is drawn.
    """
    leans = [preference for vote in ballots.votes if (preference := vote.answer.get("preference"))]
    return (
        _ratio(sum(one < 0 for one in leans), len(leans)),
        _ratio(0.5, math.sqrt(len(leans))),
        len(leans),
    )


def annotators(ballots: Ballots) -> list[dict[str, Any]]:
    """Of each: votes, skips, changes, seconds a task (the median), agreement with the others, gold right and seen."""
    gold, same, met = reliability(ballots), Counter[str](), Counter[str]()
    for of in [of for kind in KINDS for of in by_item(labels(ballots, kind)).values()]:
        for one in of:
            same[one.annotator] += sum(other.value == one.value for other in of) - 1
            met[one.annotator] += len(of) - 1
    verdicts = Counter((vote.annotator, vote.verdict) for vote in ballots.latest)
    history: dict[str, list[Vote]] = defaultdict(list)
    for vote in ballots.history:
        history[vote.annotator].append(vote)
    return [
        {
            "annotator": name,
            "vote": verdicts[name, "vote"],
            "skip": verdicts[name, "skip"],
            "changed": sum(vote.revision > 1 for vote in every),
            "seconds": median(vote.seconds for vote in every if vote.verdict != "undo"),
            "agrees": _ratio(same[name], met[name]),
            "gold": gold.get(name, (0, 0)),
        }
        for name, every in sorted(history.items())
    ]


def overview(ballots: Ballots, wanted: int) -> dict[str, Any]:
    """All figures of the admin page, where each task is to have ``wanted`` votes."""
    votes = Counter(vote.task for vote in ballots.votes)
    tasks = [number for number, task in ballots.tasks.items() if task.gold is None]
    asked = {task.kind for task in ballots.tasks.values()}
    return {
        "tasks": len(tasks),
        "gold": len(ballots.tasks) - len(tasks),
        "votes": sum(votes[number] for number in tasks),
        "wanted": wanted * len(tasks),
        "complete": sum(votes[number] >= wanted for number in tasks),
        "begun": sum(0 < votes[number] < wanted for number in tasks),
        "agreement": {
            k: agreement(labels(ballots, k), k == "rate")._asdict() for k in KINDS if k in asked
        },
        "position": position_bias(ballots),
        "seconds": median([vote.seconds for vote in ballots.votes] or [0.0]),
        "annotators": annotators(ballots),
    }
