"""One score of a response from the scores of its steps, and what each step adds to it."""

from __future__ import annotations

from itertools import accumulate
from typing import Literal

Aggregate = Literal["min", "product", "last", "mean", "sum"]
"""How scores of steps become one: the lowest, their product, the last one, their mean or their sum."""


def running_aggregates(scores: list[float], aggregate: Aggregate) -> list[float]:
    r"""The score of the response up to and with each step.

    .. math:: R_k = \min_{i \le k} p_i, \quad \prod_{i \le k} p_i, \quad p_k, \quad \frac1k \sum_{i \le k} p_i
        \quad\text{or}\quad \sum_{i \le k} p_i

    The last one is that of the response; the lowest and the product as Lightman et al. (2023,
    https://arxiv.org/abs/2305.20050, appendix F) use them.

    Args:
        scores: of the steps, such as the probability that each is right.
        aggregate: how they become one.

    Example:
        >>> running_aggregates([0.5, 1.0, 0.5], "product")
        [0.5, 0.5, 0.25]
    """
    match aggregate:
        case "min":
            return [*accumulate(scores, min)]
        case "product":
            return [*accumulate(scores, float.__mul__)]
        case "last":
            return list(scores)
        case "mean":
            return [total / count for count, total in enumerate(accumulate(scores), start=1)]
        case "sum":
            return [*accumulate(scores)]


def step_gains(scores: list[float], aggregate: Aggregate) -> list[float]:
    r"""What each step adds to the score of the response, which is their sum.

    .. math:: g_k = R_k - R_{k-1}, \qquad R_0 = 0

    With ``min`` a step is charged by how much it lowers the lowest score so far, as in the credit assignment of Cheng
    et al. (2025, https://arxiv.org/abs/2504.15275); with ``sum`` a step is paid its own score.

    Args:
        scores: of the steps.
        aggregate: how they become one.

    Example:
        >>> step_gains([1.0, 0.75, 1.0, 0.25], "min"), step_gains([1.0, 0.75], "sum")
        ([1.0, -0.25, 0.0, -0.5], [1.0, 0.75])
    """
    running = running_aggregates(scores, aggregate)
    return [after - before for before, after in zip([0.0, *running], running, strict=False)]
