"""Scores of prompts that the reward model was trained on, apart from those of others: logged, and whether they part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from lit_align.data.trained_prompts import seen_prompts
from lit_align.functional.trends import watched_trend
from lit_align.rl.rollouts import RolloutBatch

SEEN, UNSEEN = "reward/seen", "reward/unseen"
REMEDY = (
    "the policy may be learning what the reward model remembers of them; train it on prompts that the reward model has "
    "not seen, or hold those out of the reward model's data"
)


class SeenPoint(NamedTuple):
    """Means of an iteration over responses.

    Args:
        step: of the iteration.
        seen: to prompts that the reward model was trained on.
        unseen: to others.
    """

    step: int
    seen: float
    unseen: float


def seen_metrics(
    rollouts: RolloutBatch, trained: frozenset[str], golds: Sequence[str] = ()
) -> dict[str, float]:
    """Mean score of the responses to prompts that the reward model has seen, and of the others, where there are any.

    Args:
        rollouts: of an iteration, with scores.
        trained: hashes of the prompts of the reward model; without any there are no metrics.
        golds: rewards of weight 0, whose means are given too.
    """
    if not trained:
        return {}
    by_prompt = torch.tensor(seen_prompts([group.prompt for group in rollouts.groups], trained))
    is_seen = by_prompt[rollouts.prompt]
    values = {"": rollouts.score_totals}
    for name in golds:
        if name in rollouts.scores.parts:
            values[f"/{name}"] = rollouts.scores.parts[name]
    metrics = {}
    for ending, scores in values.items():
        counts = rollouts.is_scored & ~scores.isnan()
        for name, members in ((SEEN, is_seen), (UNSEEN, ~is_seen)):
            if (members & counts).any():
                metrics[f"{name}{ending}"] = scores[members & counts].mean().item()
    return metrics


def seen_point(metrics: Mapping[str, float], step: int, name: str = "") -> SeenPoint | None:
    """The means of an iteration, from `seen_metrics`; None if it had prompts of one kind only.

    Args:
        metrics: of the iteration.
        step: its number.
        name: of a reward of weight 0; empty for the score.
    """
    ending = f"/{name}" if name else ""
    means = [metrics.get(f"{start}{ending}", math.nan) for start in (SEEN, UNSEEN)]
    return None if any(map(math.isnan, means)) else SeenPoint(step, *means)


def find_overlap_effect(
    points: Sequence[SeenPoint], golds: Mapping[str, Sequence[SeenPoint]]
) -> str | None:
    """In words, that scores of seen and of unseen prompts grow apart; None if not, or if a gold reward says the same.

    Which prompts are easier does not matter: what counts is whether the difference of the two means has a trend, by
    `watched_trend`, from `trends.FEWEST` iterations on. A reward of weight 0 that has one too, in the same direction,
    knows nothing of the reward model's data, so that then the prompts differ and not what is remembered of them.

    Args:
        points: of the score.
        golds: the same of each reward of weight 0.

    Example:
        >>> points = [SeenPoint(t, 0.1 * t + 0.01 * (t % 2), 0.02 * t) for t in range(20)]
        >>> print(find_overlap_effect(points, {})[:111])
        scores of prompts that the reward model was trained on and of others part: from step 0 to 19 they changed by +1
        >>> find_overlap_effect(points, {"Nouns": points}) is None
        True
    """
    trend = watched_trend(_differences(points))
    if not trend.is_significant:
        return None
    gold_changes = []
    for name, gold_points in golds.items():
        gold_trend = watched_trend(_differences(gold_points))
        if gold_trend.is_significant and gold_trend.slope * trend.slope > 0:
            return None
        on_seen, on_others = _changes(gold_points)
        gold_changes.append(f"; {name}, which has weight 0, by {on_seen:+.2f} and {on_others:+.2f}")
    on_seen, on_others = _changes(points)
    return (
        f"scores of prompts that the reward model was trained on and of others part: from step {points[0].step} to "
        f"{points[-1].step} they changed by {on_seen:+.2f} on those and by {on_others:+.2f} on the others "
        f"(t = {trend.t:.1f} where {trend.bar:.1f} is unlikely by chance, with a correlation of "
        f"{trend.correlation:.2f} between successive iterations){''.join(gold_changes)}: {REMEDY}"
    )


def _differences(points: Sequence[SeenPoint]) -> np.ndarray:
    return np.array([point.seen - point.unseen for point in points])


def _changes(points: Sequence[SeenPoint]) -> tuple[float, float]:
    """How much the fitted lines of both change from the first point to the last."""
    columns = np.array([point[1:] for point in points]).reshape(-1, 2)
    steps = max(len(points) - 1, 0)
    changes = [float(watched_trend(column).slope * steps) for column in columns.T]
    return changes[0], changes[1]
