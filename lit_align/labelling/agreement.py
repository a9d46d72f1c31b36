"""Inter-annotator agreement, position bias, and metrics of each annotator."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom

from lit_align.labelling.aggregation import (
    Label,
    collect_labels,
    gold_accuracy,
    group_by_item,
)
from lit_align.labelling.alpha import count_values, estimate_alpha, krippendorff_alpha
from lit_align.labelling.votes import RETRACTED, TASK_KINDS, CampaignVotes, Vote

ValuePair = tuple[int, int]


class Agreement(NamedTuple):
    """Agreement between annotators; NaN where there are too few labels.

    Args:
        raw: how often two labels of an item are the same.
        cohen: mean Cohen's κ of pairs of annotators, weighted by the items they share.
        fleiss: Fleiss' κ of the items with the commonest number of labels, the smaller one if two are equally common.
        alpha: Krippendorff's α of all items, ordinal for ratings.
    """

    raw: float
    cohen: float
    fleiss: float
    alpha: float


def measure_agreement(labels: Sequence[Label], ordinal: bool = False) -> Agreement:
    """Agreement of the labels of one kind of task.

    Example:
        >>> labels = [Label((task, 0, 1), name, 1 - 2 * (task % 2)) for task in range(4) for name in "ab"]
        >>> measure_agreement(labels)
        Agreement(raw=1.0, cohen=1.0, fleiss=1.0, alpha=1.0)
    """
    items = list(group_by_item(labels).values())
    values = sorted({label.value for label in labels})
    rows = [count_values(item_labels, values) for item_labels in items]
    counts = np.array(rows).reshape(len(rows), len(values))
    num_labels = counts.sum(1)
    num_equal = (counts * (counts - 1)).sum()
    num_compared = (num_labels * (num_labels - 1)).sum()
    return Agreement(
        raw=_ratio(num_equal, num_compared),
        cohen=_cohen(items),
        fleiss=_fleiss(counts),
        alpha=krippendorff_alpha(counts, values, ordinal),
    )


def _ratio(part: float, total: float) -> float:
    return float(part / total) if total else math.nan


def _cohen(items: Iterable[list[Label]]) -> float:
    """κ = (observed - expected) / (1 - expected) of each pair; undefined where both only ever use one same value."""
    total, num_items = 0.0, 0
    for values in _shared_values(items).values():
        num_shared = len(values)
        observed = sum(first == second for first, second in values)
        expected = _expected_equal(values)
        if expected < num_shared:
            total += num_shared * (observed - expected) / (num_shared - expected)
            num_items += num_shared
    return _ratio(total, num_items)


def _shared_values(items: Iterable[list[Label]]) -> dict[tuple[str, str], list[ValuePair]]:
    """For each two annotators, the values that they gave to the items that both labelled."""
    shared = defaultdict(list)
    for item_labels in items:
        ordered = sorted(item_labels, key=lambda label: label.annotator)
        for first, second in combinations(ordered, 2):
            annotators = (first.annotator, second.annotator)
            shared[annotators].append((first.value, second.value))
    return shared


def _expected_equal(values: list[ValuePair]) -> float:
    """How many of two annotators' labels would be equal if they were independent."""
    first_counts = Counter(first for first, _ in values)
    second_counts = Counter(second for _, second in values)
    num_equal = 0
    for value, count in first_counts.items():
        num_equal += count * second_counts[value]
    return num_equal / len(values)


def _fleiss(counts: Any) -> float:
    """Fleiss, 1971, https://doi.org/10.1037/h0031619; ``counts`` is ``[items, values]``."""
    num_labels = counts.sum(1)
    is_shared = num_labels > 1
    if not is_shared.any():
        return math.nan
    n = int(np.bincount(num_labels[is_shared]).argmax())
    table = counts[num_labels == n]
    total = table.sum()
    num_equal = (table**2).sum() - total
    observed = num_equal / (len(table) * n * (n - 1))
    shares = table.sum(0) / total
    expected = (shares**2).sum()
    return _ratio(observed - expected, 1 - expected)


class PositionBias(NamedTuple):
    """How often the response shown first was preferred; ties are left out.

    Args:
        num_first: comparisons that it won.
        num_decided: comparisons without a tie.
        low: fewest wins that are usual (95 %) without a bias: the order is random, so half are expected.
        high: most wins that are.
    """

    num_first: int
    num_decided: int
    low: int
    high: int


def position_bias(data: CampaignVotes) -> PositionBias:
    """How often the response shown first was preferred, and what chance would do."""
    num_first, num_decided = 0, 0
    for vote in data.votes:
        preference = vote.answer.get("preference")
        if preference:
            num_decided += 1
            num_first += preference < 0
    low, high = binom.interval(0.95, num_decided, 0.5) if num_decided else (0, 0)
    return PositionBias(num_first, num_decided, int(low), int(high))


def annotator_metrics(
    data: CampaignVotes, labels: Mapping[str, Sequence[Label]]
) -> list[dict[str, Any]]:
    """For each annotator: votes, skips, changes, median seconds a task, labels equal to those of others, gold right.

    The last two are two numbers each: how many, and out of how many.

    Args:
        data: the votes.
        labels: `collect_labels` of them.
    """
    accuracy = gold_accuracy(data)
    num_equal, num_compared = _compare_with_others(labels)
    verdicts = Counter((vote.annotator, vote.verdict) for vote in data.latest)
    history: dict[str, list[Vote]] = defaultdict(list)
    for vote in data.history:
        history[vote.annotator].append(vote)
    rows = []
    for name, votes in sorted(history.items()):
        answers = [vote for vote in votes if vote.verdict not in RETRACTED]
        changes = [vote for vote in votes if vote.revision > 1 and vote.verdict != "removed"]
        row = {
            "annotator": name,
            "vote": verdicts[name, "vote"],
            "skip": verdicts[name, "skip"],
            "changed": len(changes),
            "seconds": _median_seconds(answers),
            "agrees": (num_equal[name], num_compared[name]),
            "gold": accuracy.get(name, (0, 0)),
        }
        rows.append(row)
    return rows


def _median_seconds(votes: Iterable[Vote]) -> float:
    """The median time of an answer, without those of other tools that do not say how long they took."""
    seconds = [vote.seconds for vote in votes if vote.seconds > 0]
    return median(seconds or [0.0])


def _compare_with_others(
    labels: Mapping[str, Sequence[Label]],
) -> tuple[Counter[str], Counter[str]]:
    """Of each annotator, how many labels of others on the same items are equal, and how many there are."""
    num_equal, num_compared = Counter[str](), Counter[str]()
    for kind_labels in labels.values():
        for item_labels in group_by_item(kind_labels).values():
            counts = Counter(label.value for label in item_labels)
            num_others = len(item_labels) - 1
            for label in item_labels:
                num_equal[label.annotator] += counts[label.value] - 1
                num_compared[label.annotator] += num_others
    return num_equal, num_compared


def campaign_metrics(data: CampaignVotes, votes_per_task: int) -> dict[str, Any]:
    """All metrics of the admin page."""
    labels = collect_labels(data)
    votes = data.votes
    num_votes = Counter(vote.task for vote in votes)
    tasks = [number for number, task in data.tasks.items() if task.gold is None]
    votes_of_tasks = [num_votes[number] for number in tasks]
    kinds = {task.kind for task in data.tasks.values()}
    agreement, alpha = {}, {}
    for kind in TASK_KINDS:
        if kind in kinds:
            is_ordinal = kind == "rate"
            agreement[kind] = measure_agreement(labels[kind], is_ordinal)._asdict()
            alpha[kind] = estimate_alpha(labels[kind], is_ordinal)
    return {
        "tasks": len(tasks),
        "gold": len(data.tasks) - len(tasks),
        "votes": sum(votes_of_tasks),
        "votes_needed": votes_per_task * len(tasks),
        "complete": sum(count >= votes_per_task for count in votes_of_tasks),
        "started": sum(0 < count < votes_per_task for count in votes_of_tasks),
        "agreement": agreement,
        "alpha": alpha,
        "position": position_bias(data),
        "seconds": _median_seconds(votes),
        "annotators": annotator_metrics(data, labels),
    }
