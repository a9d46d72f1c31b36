"""What was asked of a source of feedback, what it cost, and how far its verdicts can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from lit_align.evaluation.reward_bench import agreement, draws, estimate
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.types import Group


def label_groups(
    feedback: Feedback,
    groups: Sequence[Group],
    label_kind: str,
    batch_size: int,
    each: Callable[[Iterable[int]], Iterable[int]] = iter,
    seen: Callable[[Sequence[FeedbackResult]], object] = lambda opinions: None,
) -> list[FeedbackResult]:
    """An opinion of each group.

    Args:
        feedback: who is asked.
        groups: about what.
        label_kind: the label that is asked for.
        batch_size: groups at once.
        each: is given where the batches begin, and gives them back; a progress bar, say.
        seen: is given the opinions of each batch as they come.
    """
    opinions: list[FeedbackResult] = []
    for start in each(range(0, len(groups), batch_size)):
        new = feedback(groups[start : start + batch_size], label_kind)
        seen(new)
        opinions += new
    return opinions


def summarize_results(opinions: Sequence[FeedbackResult]) -> dict[str, Any]:
    """How many questions were asked, what came of them, and what it took.

    ``order_dependent`` is the share of pairs, shown both ways, of which another response is preferred when the order
    changes; ``first_wins`` the share of verdicts for the response that was shown first. Both are None without any.
    """
    records = [record for opinion in opinions for record in opinion.records]
    shown: dict[tuple[int, int, int], list[float]] = {}
    for k, opinion in enumerate(opinions):
        for record in opinion.records:
            if record.get("probability") is not None:
                i, j = record["responses"]
                p = record["probability"]
                shown.setdefault((k, min(i, j), max(i, j)), []).append(p if i < j else 1 - p)
    both = [of for of in shown.values() if len(of) == 2]
    firsts = [p for record in records if (p := record.get("probability")) is not None]
    set_aside = Counter(opinion.reason for opinion in opinions if opinion.group is None)
    return {
        "groups": len(opinions),
        "labelled": sum(opinion.group is not None for opinion in opinions),
        "set_aside": dict(set_aside.most_common()),
        "questions": len(records),
        "unread": dict(
            Counter(record["why"] for record in records if record.get("why")).most_common()
        ),
        "cached": sum(record.get("cached", False) for record in records),
        "attempts": sum(record.get("attempts", 0) for record in records),
        "cost": float(sum(record.get("cost", 0.0) for record in records)),
        "seconds": float(sum(record.get("seconds", 0.0) for record in records)),
        "order_dependent": _mean([(a - 0.5) * (b - 0.5) < 0 for a, b in both]),
        "first_wins": _mean([0.5 + 0.5 * ((p > 0.5) - (p < 0.5)) for p in firsts]),
    }


def measure_agreement(
    groups: Sequence[Group], opinions: Sequence[FeedbackResult]
) -> dict[str, Any] | None:
    """How far opinions agree with the comparisons that the groups came with; None if they came with none.

    A tie, and what was not read, is half right. For Cohen's kappa (1960, https://doi.org/10.1177/001316446002000104)
    each comparison counts both ways round, since many files hold the better response first: chance is then 1/2.
    """
    from torchmetrics.functional.classification import multiclass_cohen_kappa

    known = [
        (group, opinion) for group, opinion in zip(groups, opinions, strict=True) if group.pairs
    ]
    if not known:
        return None
    verdicts, unread = agreement(*map(list, zip(*known, strict=True)))
    sure = torch.tensor(verdicts.chosen - verdicts.rejected).sign().long()
    says, truth = (
        torch.cat([1 + sure, 1 - sure]),
        torch.cat([torch.full_like(sure, 2), torch.zeros_like(sure)]),
    )
    kappa = multiclass_cohen_kappa(says, truth, num_classes=3)
    found = {"comparisons": len(sure), "ties": int((sure == 0).sum()) - unread, "unread": unread}
    return {
        **found,
        **estimate(draws(verdicts), len(set(verdicts.prompt.tolist()))),
        "kappa": float(kappa),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
