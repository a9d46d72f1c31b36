"""Is there a trend in a series that is looked at again with every new point?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lit_align.functional.statistics import Floats

FALSE_ALARM = 0.01
"""Chance that a series without a trend is ever taken for one with a trend, however long it is watched."""
FEWEST = 3
"""Points through which a line is more than drawn."""


class Trend(NamedTuple):
    """A line through a series.

    Args:
        slope: change from a point to the next.
        t: slope over its standard error.
        bar: beyond which, without its sign, t is significant at this look.
    """

    slope: float
    t: float
    bar: float

    @property
    def is_significant(self) -> bool:
        """Whether the series has a trend."""
        return abs(self.t) > self.bar


def watched_trend(values: Floats, false_alarm: float = FALSE_ALARM) -> Trend:
    r"""The least-squares line through a series, and whether its slope differs from 0 although one has looked often.

    .. math::
        t = \frac{\hat b}{s / \sqrt{\sum_i (i - \bar i)^2}}, \qquad
        |t| > t_{n-2}\Big(1 - \frac{\alpha}{2 k (k + 1)}\Big), \quad k = n - 2

    The k-th look, at the n-th point, may spend :math:`\alpha / (k (k + 1))` of the chance of a false alarm α. These sum
    to α over all looks, so that by the union bound a series of independent normal values around a constant, watched
    forever, passes the bar with a probability of at most α.

    Args:
        values: of the series so far, ``[n]``.
        false_alarm: α.

    Example:
        >>> watched_trend(np.array([1.0, 2.0, 4.0])).is_significant  # t = 5.2 with one degree of freedom
        False
        >>> watched_trend(np.arange(8) + np.array([0, 0.1] * 4)).is_significant
        True
    """
    from scipy.stats import t as student

    count = len(values)
    if count < FEWEST:
        return Trend(0.0, 0.0, float("inf"))
    place = np.arange(count) - (count - 1) / 2
    spread = float(place @ place)
    slope = float(place @ values) / spread
    residuals = values - values.mean() - slope * place
    freedom = count - 2
    error = float(residuals @ residuals / freedom / spread) ** 0.5
    rounding = 1e-12 * float(
        np.abs(values).max()
    )  # a constant series has no error, and no slope but rounding
    look = freedom
    bar = float(student.isf(false_alarm / (2 * look * (look + 1)), freedom))
    return Trend(slope, slope / max(error, rounding, 1e-300), bar)
