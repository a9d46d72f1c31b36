"""Is there a trend in a series that is looked at again with every new point, and whose points depend on each other?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lit_align.functional.statistics import Floats

FALSE_ALARM = 0.01
"""Chance that a series of independent values around a constant is ever taken for one with a trend, at most."""
FEWEST = 20
"""Points from which it is looked at: from fewer, how much points depend on each other cannot be told."""
LEAST_FREEDOM = 1.0


class Trend(NamedTuple):
    """A line through a series, or through each of several.

    Args:
        slope: change from a point to the next, ``[...]``.
        t: slope over its standard error, ``[...]``.
        bar: beyond which, without its sign, t is significant at this look, ``[...]``.
        correlation: ρ that the error reckons with: of what a point and the next one leave, ``[...]``.
    """

    slope: Floats
    t: Floats
    bar: Floats
    correlation: Floats

    @property
    def is_significant(self) -> npt.NDArray[np.bool_]:
        """Whether the series has a trend, ``[...]``."""
        return np.abs(self.t) > self.bar


def watched_trend(values: Floats, false_alarm: float = FALSE_ALARM) -> Trend:
    r"""The least-squares line through a series, and whether its slope differs from 0 although one has looked often.

    Neighbouring points may be alike, as the means of successive policies are. With the lag-1 correlation ρ of the
    residuals n points count as :math:`n' = n (1 - \rho) / (1 + \rho)` independent ones, as in a long AR(1) series:

    .. math::
        t = \frac{\hat b}{s / \sqrt{\sum_i (i - \bar i)^2}} \sqrt{n' / n}, \qquad
        |t| > t_{n' - 2}\Big(1 - \frac{\alpha}{2 k (k + 1)}\Big), \quad k = n - 2

    The look at the n-th point may spend :math:`\alpha / (k (k + 1))` of the chance of a false alarm α. These sum to
    at most α, so that by the union bound a series of independent normal values, watched forever, passes the bar with a
    probability of at most α. For dependent values there is no such bound, since ρ is estimated: as the residuals'
    correlation r, less its bias of :math:`-(2 + 4 r) / n` around a line, and one standard error of
    :math:`\sqrt{(1 - r^2) / n}` more, but at least 0 (Kendall & Stuart, The Advanced Theory of Statistics, vol. 3,
    on the bias). Of series of 100 points some 1 in 100 alarm at ρ = 0.9, and some 2 or 3 in 100 random walks.

    Args:
        values: of the series so far, ``[..., n]``.
        false_alarm: α.

    Example:
        >>> noise = np.array([0, 0.1] * 10)
        >>> bool(watched_trend(np.arange(20) + noise).is_significant)
        True
        >>> bool(watched_trend(np.arange(19) + noise[:19]).is_significant)  # too few points
        False
    """
    from scipy.stats import t as student

    count = values.shape[-1]
    place = np.arange(count) - (count - 1) / 2
    spread = max(float(place @ place), 1e-300)
    slope = values @ place / spread
    if count < FEWEST:
        zero = np.zeros(values.shape[:-1])
        return Trend(slope, zero, zero + np.inf, zero)
    residuals = values - values.mean(-1, keepdims=True) - slope[..., None] * place
    look = count - 2
    error = np.sqrt(np.square(residuals).sum(-1) / look / spread)
    # a constant series has no error, and no slope but rounding
    rounding = np.maximum(1e-12 * np.abs(values).max(-1), 1e-300)
    correlation = np.where(error > rounding, _correlation(residuals), 0.0)
    size = count * (1 - correlation) / (1 + correlation)
    error = np.maximum(error, rounding) * np.sqrt(count / size)
    freedom = np.maximum(size - 2, LEAST_FREEDOM)
    bar = student.isf(false_alarm / (2 * look * (look + 1)), freedom)
    bar = np.where(size - 2 < LEAST_FREEDOM, np.inf, bar)
    return Trend(slope, slope / error, bar, correlation)


def _correlation(residuals: Floats) -> Floats:
    """The lag-1 correlation of residuals from a line, ``[..., n]``, rather too high than too low, ``[...]``."""
    count = residuals.shape[-1]
    squares = np.maximum(np.square(residuals).sum(-1), 1e-300)
    plain = (residuals[..., 1:] * residuals[..., :-1]).sum(-1) / squares
    unbiased = plain + (2 + 4 * plain) / count
    above = np.sqrt(np.maximum(1 - np.square(unbiased), 0) / count)
    correlation: Floats = np.clip(unbiased + above, 0.0, 1 - 1e-9)
    return correlation
