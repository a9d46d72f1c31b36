"""Krippendorff's α with an interval: a bootstrap over tasks.

Krippendorff, *Content Analysis*, 2004, chapter 11. The figure is from the library krippendorff; each bootstrap sample
is computed from the coincidences of its tasks, which add up.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

import krippendorff
import numpy as np

from lit_align.labelling.aggregation import Label, group_by_item

MIN_TASKS = 10
"""Tasks with two or more votes below which a coefficient says nothing: of a few tasks, even an interval is wrong."""
NUM_SAMPLES = 2000
LEVEL = 0.95


class AlphaEstimate(NamedTuple):
    """α of some labels.

    Args:
        alpha: the coefficient; NaN if all labels are the same.
        low: lower end of the interval.
        high: upper end of it.
        num_tasks: tasks with two or more votes, which it rests on.
    """

    alpha: float
    low: float
    high: float
    num_tasks: int

    @property
    def is_reportable(self) -> bool:
        """Whether it rests on enough tasks, and is defined."""
        return self.num_tasks >= MIN_TASKS and not math.isnan(self.alpha)


def krippendorff_alpha(counts: Any, values: Sequence[int], ordinal: bool) -> float:
    """α of ``counts``, how many labels of each item have each value; NaN if fewer than two values are used."""
    num_labels = counts.sum(1)
    is_used = counts[num_labels > 1].any(0)
    if is_used.sum() < 2:
        return math.nan
    level: Literal["ordinal", "nominal"] = "ordinal" if ordinal else "nominal"
    return float(krippendorff.alpha(None, counts, list(values), level))


def estimate_alpha(labels: Sequence[Label], ordinal: bool = False, seed: int = 0) -> AlphaEstimate:
    """α of the labels of one kind of task, with a percentile interval.

    Args:
        labels: the labels; items of the same task are drawn together.
        ordinal: whether values are in an order, as ratings are.
        seed: of the bootstrap.
    """
    values = sorted({label.value for label in labels})
    tables: dict[Hashable, list[Any]] = defaultdict(list)
    for item, item_labels in group_by_item(labels).items():
        if len(item_labels) > 1:
            task = item if item_labels[0].vote is None else item_labels[0].vote.task
            tables[task].append(count_values(item_labels, values))
    num_tasks = len(tables)
    if not num_tasks:
        return AlphaEstimate(math.nan, math.nan, math.nan, 0)
    counts = np.array([row for rows in tables.values() for row in rows])
    alpha = krippendorff_alpha(counts, values, ordinal)
    matrices = [_coincidences(np.array(rows)) for rows in tables.values()]
    low, high = _interval(np.array(matrices), ordinal, seed)
    return AlphaEstimate(alpha, low, high, num_tasks)


def count_values(labels: Sequence[Label], values: Sequence[int]) -> list[int]:
    """How many of the labels of an item have each value."""
    counter = Counter(label.value for label in labels)
    return [counter[value] for value in values]


def _coincidences(counts: Any) -> Any:
    """How often two labels of an item have each two values, weighted so that an item counts as its labels."""
    num_labels = counts.sum(1)
    pairs = counts[:, :, None] * counts[:, None, :]
    indices = np.arange(counts.shape[1])
    pairs[:, indices, indices] -= counts
    return (pairs / (num_labels - 1)[:, None, None]).sum(0)


def _interval(matrices: Any, ordinal: bool, seed: int) -> tuple[float, float]:
    """The percentile interval of α over samples of the tasks; samples with a single value are left out."""
    kinds, num_tasks = np.unique(matrices, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    shares = num_tasks / num_tasks.sum()
    draws = generator.multinomial(num_tasks.sum(), shares, size=NUM_SAMPLES)
    alphas = alphas_of_coincidences(np.tensordot(draws, kinds, axes=1), ordinal)
    alphas = alphas[~np.isnan(alphas)]
    if not len(alphas):
        return math.nan, math.nan
    low, high = np.quantile(alphas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def alphas_of_coincidences(coincidences: Any, ordinal: bool) -> Any:
    """α of each of several matrices of coincidences, ``[samples, values, values]``; NaN where one value is used."""
    totals = coincidences.sum(2)
    total = totals.sum(1)
    if ordinal:
        ranks = totals.cumsum(1) - totals / 2
        distances = (ranks[:, :, None] - ranks[:, None, :]) ** 2
    else:
        distances = 1 - np.eye(coincidences.shape[1])[None]
    observed = (coincidences * distances).sum((1, 2))
    expected = (totals[:, :, None] * totals[:, None, :] * distances).sum((1, 2)) / (total - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)
