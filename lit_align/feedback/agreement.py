"""Run a feedback source over groups, summarise what it cost, and measure its agreement with existing labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.base import IndexPair, Record, read_comparison
from lit_align.feedback.checked_results import checked_results
from lit_align.feedback.verdicts import verdicts_from_feedback
from lit_align.functional.statistics import accuracy_interval, win_score
from lit_align.types import Group


def label_groups(
    feedback: Feedback,
    groups: Sequence[Group],
    label_kind: str,
    batch_size: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    on_batch: Callable[[Sequence[FeedbackResult]], object] = lambda results: None,
) -> list[FeedbackResult]:
    """The labels of each group.

    Args:
        feedback: the source of the labels.
        groups: prompts with responses.
        label_kind: the requested kind of label.
        batch_size: groups per call.
        progress: wraps the iterable of batches, such as a progress bar.
        on_batch: called with the results of each batch.
    """
    results: list[FeedbackResult] = []
    for start in progress(range(0, len(groups), batch_size)):
        batch = checked_results(feedback, groups[start : start + batch_size], label_kind)
        on_batch(batch)
        results.extend(batch)
    return results


def summarize_results(results: Sequence[FeedbackResult]) -> dict[str, Any]:
    """Counts of labels, questions and failures, with the total cost.

    ``order_dependent`` is the share of pairs, shown in both orders, whose preferred response changes with the order;
    ``first_wins`` is the share of verdicts for the response that was shown first. Both are None without any.
    """
    set_aside: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    records: list[Record] = []
    first_wins: list[float] = []
    for result in results:
        records.extend(result.records)
        if result.group is None:
            set_aside[result.reason] += 1
    for record in records:
        if record.get("why"):
            unread[record["why"]] += 1
        if record.get("probability") is not None:
            first_wins.append(win_score(record["probability"], 0.5))
    return {
        "groups": len(results),
        "labelled": len(results) - set_aside.total(),
        "set_aside": dict(set_aside.most_common()),
        "questions": len(records),
        "unread": dict(unread.most_common()),
        "cached": _total(records, "cached"),
        "attempts": _total(records, "attempts"),
        "cost": float(_total(records, "cost")),
        "seconds": float(_total(records, "seconds")),
        "order_dependent": _mean(_order_changes(results)),
        "first_wins": _mean(first_wins),
    }


def measure_agreement(
    groups: Sequence[Group], results: Sequence[FeedbackResult]
) -> dict[str, Any] | None:
    """Agreement with the comparisons that the groups already have; None if they have none, or none got a verdict.

    A tie, or a missing verdict, is half right. For Cohen's kappa (1960, https://doi.org/10.1177/001316446002000104)
    each comparison counts in both orders, since many files put the better response first: chance is then 1/2.
    """
    from torchmetrics.functional.classification import multiclass_cohen_kappa

    compared = [index for index, group in enumerate(groups) if group.pairs]
    if not compared:
        return None
    compared_groups = [groups[i] for i in compared]
    compared_results = [results[i] for i in compared]
    verdicts, num_unread = verdicts_from_feedback(compared_groups, compared_results)
    if num_unread == len(verdicts.chosen):
        return None
    preferences = torch.tensor(verdicts.chosen - verdicts.rejected).sign().long()
    chosen_wins = torch.ones_like(preferences)
    predicted = torch.cat([preferences, -preferences])
    actual = torch.cat([chosen_wins, -chosen_wins])
    kappa = multiclass_cohen_kappa(predicted + 1, actual + 1, num_classes=3)
    num_prompts = len(set(verdicts.prompt.tolist()))
    return {
        "comparisons": len(preferences),
        "ties": int((preferences == 0).sum()) - num_unread,
        "unread": num_unread,
        **accuracy_interval(verdicts.bootstrap(), num_prompts),
        "kappa": float(kappa),
    }


def _order_changes(results: Sequence[FeedbackResult]) -> list[bool]:
    """For each pair shown in both orders, whether the preferred response changes with the order."""
    changes = []
    for result in results:
        probabilities: dict[IndexPair, list[Any]] = {}
        for record in result.records:
            if record.get("probability") is None:
                continue
            pair, probability = read_comparison(record)
            probabilities.setdefault(pair, []).append(probability)
        for values in probabilities.values():
            if len(values) == 2:
                first, second = values
                changes.append((first - 0.5) * (second - 0.5) < 0)
    return changes


def _total(records: Sequence[Record], key: str) -> Any:
    return sum(record.get(key, 0) for record in records)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
