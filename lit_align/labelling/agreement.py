"""How far annotators agree, whether the place on the page sways them, and how each of them works."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations
from statistics import median
from typing import Any, NamedTuple

import krippendorff
import numpy as np

from lit_align.labelling.votes import KINDS, Ballots, Item, Label, labels, reliability


class Agreement(NamedTuple):
    """Figures of agreement; NaN where there is too little to tell.

    Args:
        raw: how often two annotators say the same of an item, over all pairs of answers to an item.
        cohen: Cohen's κ, mean over pairs of annotators, each weighing as many items as they share.
        fleiss: Fleiss' κ of the items that have as many answers as most have, the fewer if in doubt.
        alpha: Krippendorff's α of all items; ordinal for ratings, nominal otherwise.
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
    items, values = _by_item(given), sorted({label.value for label in given})
    counts = np.array([[list(said.values()).count(value) for value in values] for said in items])
    counts = counts.reshape(len(items), len(values))
    votes, alpha = counts.sum(1), math.nan
    if counts[votes > 1].any(0).sum() > 1:
        level: Any = "ordinal" if ordinal else "nominal"
        alpha = float(krippendorff.alpha(value_counts=counts, value_domain=values, level_of_measurement=level))
    same, pairs = (counts * (counts - 1)).sum(), (votes * (votes - 1)).sum()
    return Agreement(_ratio(same, pairs), _cohen(items), _fleiss(counts), alpha)


def _by_item(given: Iterable[Label]) -> Collection[dict[str, int]]:
    """What each annotator says of each item."""
    found: dict[Item, dict[str, int]] = defaultdict(dict)
    for item, annotator, value, _ in given:
        found[item][annotator] = value
    return found.values()


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _cohen(answers: Iterable[dict[str, int]]) -> float:
    """κ = (observed - expected) / (1 - expected) of each pair; two who only ever say one thing have none."""
    shared: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for said in answers:
        for one, other in combinations(sorted(said), 2):
            shared[one, other].append((said[one], said[other]))
    kappas, weights = [], []
    for both in shared.values():
        first, second = (Counter(column) for column in zip(*both, strict=True))
        expected = sum(first[value] * second[value] for value in first) / len(both) ** 2
        if expected < 1:
            kappas.append((sum(a == b for a, b in both) / len(both) - expected) / (1 - expected))
            weights.append(len(both))
    return _ratio(float(np.dot(kappas, weights)), sum(weights))


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
    return _ratio(sum(one < 0 for one in leans), len(leans)), _ratio(0.5, math.sqrt(len(leans))), len(leans)


def annotators(ballots: Ballots) -> list[dict[str, Any]]:
    """Of each: votes, skips, changes, seconds a task (the median), agreement with the others, gold right and seen."""
    gold, seconds = reliability(ballots), defaultdict[str, list[float]](list)
    counts = defaultdict[str, Counter[str]](Counter)
    for vote in {(vote.annotator, vote.task): vote for vote in ballots.history}.values():
        counts[vote.annotator][vote.verdict] += 1
    for vote in ballots.history:
        seconds[vote.annotator] += [vote.seconds] * (vote.verdict != "undo")
        counts[vote.annotator]["changed"] += vote.revision > 1
    for said in [said for kind in KINDS for said in _by_item(labels(ballots, kind))]:
        for name, value in said.items():
            counts[name] += Counter(same=list(said.values()).count(value) - 1, met=len(said) - 1)
    return [
        {
            "annotator": name,
            **{key: counts[name][key] for key in ("vote", "skip", "changed")},
            "seconds": median(times),
            "agrees": _ratio(counts[name]["same"], counts[name]["met"]),
            "gold": gold.get(name, (0, 0)),
        }
        for name, times in sorted(seconds.items())
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
        "agreement": {k: agreement(labels(ballots, k), k == "rate")._asdict() for k in KINDS if k in asked},
        "position": position_bias(ballots),
        "seconds": median([vote.seconds for vote in ballots.votes] or [0.0]),
        "annotators": annotators(ballots),
    }
