"""How far annotators agree, whether the place on the page sways them, and how each of them works."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import combinations
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from lit_align.labelling.votes import Ballots, Label, labels, reliability


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
    values = sorted({label.value for label in given})
    people: dict[Any, dict[str, int]] = defaultdict(dict)
    for label in given:
        people[label.item][label.annotator] = label.value
    counts = np.array([[list(said.values()).count(value) for value in values] for said in people.values()])
    counts = counts.reshape(len(people), len(values))
    votes = counts.sum(1)
    same, every = (counts * (counts - 1)).sum(), (votes * (votes - 1)).sum()
    return Agreement(_ratio(same, every), _cohen(people.values()), _fleiss(counts), _alpha(counts, values, ordinal))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _cohen(answers: Any) -> float:
    """κ = (observed - expected) / (1 - expected) of each pair; two who only ever say one thing have none."""
    shared: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for said in answers:
        for one, other in combinations(sorted(said), 2):
            shared[one, other].append((said[one], said[other]))
    found = []
    for both in shared.values():
        first, second = (Counter(column) for column in zip(*both, strict=True))
        expected = sum(first[value] * second[value] for value in first) / len(both) ** 2
        if expected < 1:
            observed = sum(a == b for a, b in both) / len(both)
            found.append(((observed - expected) / (1 - expected), len(both)))
    return _ratio(sum(kappa * n for kappa, n in found), sum(n for _, n in found))


def _fleiss(counts: Any) -> float:
    """Fleiss, 1971, https://doi.org/10.1037/h0031619."""
    votes = counts.sum(1)
    several = votes[votes > 1]
    if not len(several):
        return math.nan
    n = int(np.bincount(several).argmax())
    table = counts[votes == n]
    observed = ((table**2).sum() - table.sum()) / (len(table) * n * (n - 1))
    expected = ((table.sum(0) / table.sum()) ** 2).sum()
    return _ratio(observed - expected, 1 - expected)


def _alpha(counts: Any, values: list[int], ordinal: bool) -> float:
    import krippendorff

    if len(values) < 2 or not (counts.sum(1) > 1).any():
        return math.nan
    alpha = partial(krippendorff.alpha, value_counts=counts, value_domain=values)
    return float(alpha(level_of_measurement="ordinal") if ordinal else alpha(level_of_measurement="nominal"))


def position_bias(ballots: Ballots) -> tuple[float, float, int]:
    """Share of comparisons that went to the response shown first, its standard error from one half, and how many.

    Ties are left out. Without a bias the share is one half, whatever the responses, as the order is drawn.
    """
    shown = [
        vote.answer["better"] == vote.shown[0]
        for vote in ballots.votes
        if ballots.tasks[vote.task].kind == "compare" and vote.answer["better"] is not None
    ]
    return _ratio(sum(shown), len(shown)), _ratio(0.5, math.sqrt(len(shown))), len(shown)


def annotators(ballots: Ballots) -> list[dict[str, Any]]:
    """Of each: votes, skips, changes, seconds a task (the median), agreement with the others, gold right and seen."""
    gold, seconds = reliability(ballots), defaultdict[str, list[float]](list)
    latest = {(vote.annotator, vote.task): vote for vote in ballots.history}
    for vote in ballots.history:
        if vote.verdict != "undo":
            seconds[vote.annotator].append(vote.seconds)
    same, met = Counter[str](), Counter[str]()
    for kind in ("compare", "rank", "rate", "thumbs"):
        people: dict[Any, list[Label]] = defaultdict(list)
        for label in labels(ballots, kind):
            people[label.item].append(label)
        for given in people.values():
            counts = Counter(label.value for label in given)
            for label in given:
                same[label.annotator] += counts[label.value] - 1
                met[label.annotator] += len(given) - 1
    return [
        {
            "annotator": name,
            "votes": sum(vote.verdict == "vote" for (who, _), vote in latest.items() if who == name),
            "skips": sum(vote.verdict == "skip" for (who, _), vote in latest.items() if who == name),
            "changed": sum(vote.revision > 1 and vote.annotator == name for vote in ballots.history),
            "seconds": median(times),
            "agrees": _ratio(same[name], met[name]),
            "gold": gold.get(name, (0, 0)),
        }
        for name, times in sorted(seconds.items())
    ]


def overview(ballots: Ballots, wanted: int) -> dict[str, Any]:
    """All figures of the admin page.

    Args:
        ballots: what people said.
        wanted: votes that each task is to have.
    """
    votes = Counter(vote.task for vote in ballots.votes)
    tasks = [number for number, task in ballots.tasks.items() if task.gold is None]
    kinds = [
        kind for kind in ("compare", "rank", "rate", "thumbs") if any(t.kind == kind for t in ballots.tasks.values())
    ]
    seconds = [vote.seconds for vote in ballots.votes]
    return {
        "tasks": len(tasks),
        "gold": len(ballots.tasks) - len(tasks),
        "votes": len(ballots.votes),
        "wanted": wanted * len(tasks),
        "complete": sum(votes[number] >= wanted for number in tasks),
        "begun": sum(0 < votes[number] < wanted for number in tasks),
        "agreement": {kind: agreement(labels(ballots, kind), kind == "rate")._asdict() for kind in kinds},
        "position": position_bias(ballots),
        "seconds": median(seconds) if seconds else 0.0,
        "annotators": annotators(ballots),
    }
