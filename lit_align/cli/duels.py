"""Duels of two answers to one prompt, judged by any source of feedback."""

from __future__ import annotations

from collections.abc import Sequence

from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.agreement import label_groups
from lit_align.feedback.base import pair_probabilities
from lit_align.progress import track
from lit_align.types import Group


def judge_duels(
    feedback: Feedback, duels: Sequence[Group], is_different: Sequence[bool], batch_size: int
) -> tuple[list[FeedbackResult], list[float | None]]:
    """The judge's results for the duels that differ, and the probability that the first answer wins of each duel.

    The same answer twice is a tie. A verdict that could not be read is None.

    Args:
        feedback: the judge.
        duels: each with two responses.
        is_different: whether these differ.
        batch_size: duels that are judged at once.
    """
    to_judge = [duel for duel, differs in zip(duels, is_different, strict=True) if differs]
    results = label_groups(
        feedback, to_judge, "pairs", batch_size, lambda starts: track(starts, "batches judged")
    )
    remaining = iter(results)
    first_wins: list[float | None] = []
    for duel, differs in zip(duels, is_different, strict=True):
        if differs:
            first_wins.append(pair_probabilities(duel, next(remaining)).get((0, 1)))
        else:
            first_wins.append(0.5)
    return results, first_wins
