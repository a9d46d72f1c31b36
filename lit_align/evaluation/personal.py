"""How often each person's held-out votes are predicted: by a model of everyone, by their own, and by what is true."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from lit_align.annotators import annotator_key
from lit_align.errors import DataError
from lit_align.functional.statistics import (
    Floats,
    bootstrap_means,
    mean_interval,
    win_score,
)
from lit_align.rewards import Reward
from lit_align.rewards.base import checked_scores, column_list
from lit_align.types import Group

PERSONAL, POOLED, ORACLE = "personal", "pooled", "oracle"
POOLED_PART = "trained/pooled"


class PersonalVerdicts(NamedTuple):
    """What models say of comparisons whose voter is known.

    Args:
        annotator: who preferred the better response, ``[n]``.
        correct: by the name of a model, 1 where it prefers it too, 0 where not, 1/2 for a tie, ``[n]``.
    """

    annotator: npt.NDArray[np.str_]
    correct: dict[str, Floats]


def personal_verdicts(
    personal: Reward,
    pooled: Reward | None,
    groups: Sequence[Group],
    batch_size: int,
    oracle: str | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> PersonalVerdicts:
    """Score all responses, each by the head of whoever voted on it and by the model of everyone.

    Args:
        personal: a RewardModelScore with by_annotator.
        pooled: scores for everyone; None takes the mean head of ``personal``.
        groups: with pairs; those of nobody are left out.
        batch_size: groups per call.
        oracle: column with the true score of each response, in that person's eyes; None if nobody knows.
        progress: wraps the iterable of batches, such as a progress bar.

    Raises:
        DataError: if no row says whose votes it has, or one has not a true score for each response.
    """
    signed = [group for group in groups if group.annotator]
    if not signed:
        raise DataError(
            "no row says whose votes it has; name the column with --columns, as in '{annotator: worker}'"
        )
    names: list[str] = []
    margins: dict[str, list[float]] = {PERSONAL: [], POOLED: []}
    if oracle is not None:
        margins[ORACLE] = []
    for start in progress(range(0, len(signed), batch_size)):
        batch = signed[start : start + batch_size]
        scores = checked_scores(personal, batch)
        by_model = {PERSONAL: scores.total, POOLED: scores.parts.get(POOLED_PART)}
        if pooled is not None:
            by_model[POOLED] = checked_scores(pooled, batch).total
        if oracle is not None:
            true_scores = [score for group in batch for score in _true_scores(group, oracle)]
            by_model[ORACLE] = torch.tensor(true_scores)
        first = 0
        for group in batch:
            names += [group.annotator] * len(group.pairs)
            for model, all_scores in by_model.items():
                assert all_scores is not None
                for pair in group.pairs:
                    margin = all_scores[first + pair.better] - all_scores[first + pair.worse]
                    margins[model].append(float(margin))
            first += len(group.responses)
    correct = {model: win_score(np.array(values), 0.0) for model, values in margins.items()}
    return PersonalVerdicts(np.array(names), correct)


def _true_scores(group: Group, column: str) -> list[float]:
    values = column_list(group, column)
    if values is None or len(values) != len(group.responses):
        raise DataError(
            f"{group.source}: the column {column!r} has not one true score for each response; leave out --oracle"
        )
    return [float(value) for value in values]


def personal_report(verdicts: PersonalVerdicts, trained_on: Mapping[str, int]) -> dict[str, Any]:
    r"""Accuracy of each model for each person, and its mean over persons with 95 % intervals.

    A person counts as one, however many votes they gave; the intervals are over persons, resampled together for all
    models, so that those of differences are paired. Of one person, or where all have the same figure, it is None:

    .. math:: \bar a = \frac{1}{P} \sum_p a_p, \qquad a_p = \frac{1}{n_p} \sum_{i \in p} \mathbb{1}[r(y_w) > r(y_l)]

    Args:
        verdicts: of held-out votes.
        trained_on: rows of each person that the personal model was trained on, by `annotator_key`.

    Returns:
        ``persons`` with hashes for names, ``mean`` by model, and ``difference`` of pairs of models.
    """
    names = [annotator_key(str(name)) for name in verdicts.annotator]  # some rows may have the hash
    keys, index = np.unique(names, return_inverse=True)
    models = list(verdicts.correct)
    counts = np.bincount(index)
    columns = [np.bincount(index, verdicts.correct[model]) / counts for model in models]
    accuracies = np.stack(columns, 1)
    persons = []
    for number, key in enumerate(keys.tolist()):
        by_model = dict(zip(models, accuracies[number].tolist(), strict=True))
        person = {"annotator": key, "votes": int(counts[number]), **by_model}
        persons.append({**person, "trained_on": trained_on.get(key, 0)})
    resampled = bootstrap_means(accuracies)
    means = {}
    for number, model in enumerate(models):
        means[model] = mean_interval(resampled[:, number], len(keys), (0.0, 1.0))
    differences = {}
    for first, second in ((PERSONAL, POOLED), (ORACLE, PERSONAL)):
        if first in models and second in models:
            gap = resampled[:, models.index(first)] - resampled[:, models.index(second)]
            differences[f"{first} - {second}"] = mean_interval(gap, len(keys), (-1.0, 1.0))
    return {"votes": len(index), "persons": persons, "mean": means, "difference": differences}
