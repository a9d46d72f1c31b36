"""A reward of weight 0 beside the one that is trained on: say when the two part.

Gao et al., 2023, https://arxiv.org/abs/2210.10760, call them gold and proxy.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lit_align.rewards import Reward
from lit_align.rewards.weighted import Weighted

WINDOW = 5
"""Iterations that a level of a reward is the mean of."""
MIN_ERRORS = 6.0
"""Standard errors by which gold must have fallen from its best level. That level is the highest of many, so that three
or four are common without any trend; six came up in none of 500 simulated runs of 200 iterations that did not fall."""
REMEDY = (
    "the policy exploits what the reward gets wrong; use an earlier checkpoint, raise kl.coefficient, or train the "
    "reward model on labels of newer samples"
)

Floats = npt.NDArray[np.float64]


class GoldPoint(NamedTuple):
    """Means of an iteration.

    Args:
        step: of the iteration.
        kl: divergence from the reference, in nats per response.
        score: what is trained on.
        gold: the reward of weight 0.
    """

    step: int
    kl: float
    score: float
    gold: float


def gold_names(reward: Reward, read_parts: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the rewards that have weight 0: logged, and not learned from.

    Args:
        reward: of the run.
        read_parts: what the advantage learns from all the same.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> from lit_align.rewards.pattern import Pattern
        >>> gold_names(Weighted([Pattern("owl"), Length(max_words=2)], [1.0, 0.0]))
        ('Length',)
    """
    unrewarded = reward.unrewarded if isinstance(reward, Weighted) else ()
    return tuple(name for name in unrewarded if name not in read_parts)


def find_parting(points: Sequence[GoldPoint], name: str) -> str | None:
    r"""In words, that gold has fallen from its best level while the score went on rising; None if not.

    Levels are means :math:`m` of five iterations. With the variance from neighbouring iterations, which a slow trend
    does not change, the two have parted at

    .. math::
        m_{best} - m_{last} > 6 \sqrt{2 \sigma^2 / 5}, \qquad
        \sigma^2 = \tfrac{1}{2} \operatorname{mean}_t (g_{t+1} - g_t)^2

    Args:
        points: of all iterations so far.
        name: of the gold reward.

    Example:
        >>> rising = [GoldPoint(t, t, t, min(t, 20 - t) + t % 2) for t in range(20)]
        >>> find_parting(rising[:14], "Nouns") is None
        True
        >>> find_parting(rising, "Nouns")[:89]
        'the reward and Nouns, which has weight 0, have parted: from 9.0 to 17.0 nats the score ro'
    """
    if len(points) < 2 * WINDOW:
        return None
    table = np.array([point[1:] for point in points])
    kernel = np.full(WINDOW, 1 / WINDOW)
    kl, score, gold = (np.convolve(column, kernel, mode="valid") for column in table.T)
    best = int(gold.argmax())
    error = np.sqrt(np.mean(np.diff(table[:, 2]) ** 2) / WINDOW)
    has_fallen = gold[best] - gold[-1] > MIN_ERRORS * error
    if best > len(gold) - 1 - WINDOW or not has_fallen or score[-1] <= score[best]:
        return None
    return (
        f"the reward and {name}, which has weight 0, have parted: from {kl[best]:.1f} to {kl[-1]:.1f} nats the score "
        f"rose from {score[best]:.2f} to {score[-1]:.2f} while {name} fell from {gold[best]:.2f} to {gold[-1]:.2f} "
        f"(best near step {points[best + WINDOW // 2].step}): {REMEDY}"
    )
