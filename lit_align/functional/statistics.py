"""Statistics of pairwise comparisons: win scores, bootstrap intervals, rank correlation and calibration."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt

RESAMPLES, SEED, NUM_BINS = 1000, 0, 10
ROUNDING = 1e-12

Floats = npt.NDArray[np.float64]


@overload
def win_score(first: float, second: float) -> float: ...


@overload
def win_score(first: Floats, second: Floats | float) -> Floats: ...


def win_score(first: Any, second: Any) -> Any:
    """1 where the first is larger, 0 where the second is, 1/2 for a tie; of numbers or arrays.

    Example:
        >>> win_score(np.array([2.0, 1.0, 0.0]), 1.0)
        array([1. , 0.5, 0. ])
    """
    return (first > second) + 0.5 * (first == second)


def bootstrap_accuracy(correct: Floats, prompts: npt.NDArray[Any], name: str = "") -> Floats:
    """The accuracy, then that of each bootstrap resample of the prompts, ``[1 + RESAMPLES]``.

    Prompts are resampled, not comparisons, since the comparisons of one prompt are correlated.

    Args:
        correct: ``[n]``, 1 for a right verdict, 0 for a wrong one, 1/2 for a tie.
        prompts: ``[n]``, an id of the prompt of each comparison.
        name: part of the seed, so that subsets of equal size are not resampled alike, and the interval of a subset does
            not depend on the other subsets.
    """
    _, prompt_index = np.unique(prompts, return_inverse=True)
    correct_by_prompt = np.bincount(prompt_index, correct)
    count_by_prompt = np.bincount(prompt_index)
    num_prompts = len(count_by_prompt)
    generator = np.random.default_rng([SEED, *name.encode()])
    accuracies = [correct.mean()]
    for _ in range(RESAMPLES):
        sample = generator.integers(num_prompts, size=num_prompts)
        num_correct = correct_by_prompt[sample].sum()
        count = count_by_prompt[sample].sum()
        accuracies.append(num_correct / count)
    return np.array(accuracies)


def accuracy_interval(accuracies: Floats, num_prompts: int) -> dict[str, Any]:
    r"""Accuracy and its 95 % interval from `bootstrap_accuracy`: the percentiles of the resamples.

    Where all resamples agree, as for a judge that is never wrong, they say nothing: the interval is then Wilson's for
    so many prompts (1927, https://doi.org/10.2307/2276774); with :math:`z = 1.96`,

    .. math::
        \Big(p + \frac{z^2}{2n} \pm z\sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}}\Big) \Big/ \Big(1 + \frac{z^2}{n}\Big)

    Example:
        >>> accuracy_interval(np.ones(1001), num_prompts=8)["interval"]  # 8 / (8 + z²)
        [0.675..., 1.0]
    """
    accuracy = float(accuracies[0])
    if np.ptp(accuracies):
        interval = np.percentile(accuracies[1:], [2.5, 97.5])
    else:
        interval = _wilson_bounds(accuracy, num_prompts, np.array([-1.96, 1.96]))
    return {"accuracy": accuracy, "interval": interval.tolist()}


def bootstrap_means(values: Floats) -> Floats:
    """The mean of each column, then that of each bootstrap resample of the rows, ``[1 + RESAMPLES, columns]``.

    All columns are resampled together, so that differences of their means are paired.

    Args:
        values: ``[rows, columns]``, such as a person's figures in each row.
    """
    generator = np.random.default_rng(SEED)
    num_rows = len(values)
    means = [values.mean(0)]
    for _ in range(RESAMPLES):
        sample = generator.integers(num_rows, size=num_rows)
        means.append(values[sample].mean(0))
    return np.stack(means)


def mean_interval(
    means: Floats, num_rows: int, limits: tuple[float, float] | None = None
) -> dict[str, Any]:
    """The mean and its 95 % interval, from a column of `bootstrap_means`; None where it is not known.

    Args:
        means: ``[1 + RESAMPLES]``, the first of all rows.
        num_rows: of the values.
        limits: of what the mean can be.

    Example:
        >>> mean_interval(bootstrap_means(np.array([[0.5], [0.5]]))[:, 0], num_rows=2)
        {'mean': 0.5, 'interval': None}
    """
    return {"mean": float(means[0]), "interval": resampled_interval(means, num_rows, limits)}


def resampled_interval(
    resampled: Floats, count: int, limits: tuple[float, float] | None = None
) -> list[float] | None:
    r"""The 95 % interval of a figure; None of one item, and where all resamples agree, which says nothing.

    It reaches as far as the resamples' percentiles, and as Student's t with their standard deviation: of few items,
    percentiles alone are too sure. With :math:`s` the deviation of the resamples of :math:`n` items,

    .. math:: x \pm t_{0.975,\,n-1}\, s \sqrt{n / (n - 1)}

    Args:
        resampled: ``[1 + RESAMPLES]``, the figure of all items, then that of each resample; NaN where it has none.
        count: of the items that were resampled.
        limits: of what the figure can be.

    Example:
        >>> means = bootstrap_means(np.array([[0.0], [1.0]]))[:, 0]
        >>> resampled_interval(means, 2, (0.0, 1.0)), resampled_interval(means, 1)
        ([0.0, 1.0], None)
    """
    from scipy.stats import t

    resamples = resampled[1:][~np.isnan(resampled[1:])]
    if count < 2 or not len(resamples) or np.ptp(resamples) < ROUNDING:
        return None
    percentiles = np.percentile(resamples, [2.5, 97.5])
    # resamples of n items vary by n - 1 of what means of n items do
    deviation = resamples.std() * (count / (count - 1)) ** 0.5
    reach = t.ppf(0.975, count - 1) * deviation
    low = min(percentiles[0], resampled[0] - reach)
    high = max(percentiles[1], resampled[0] + reach)
    if limits is not None:
        low, high = max(low, limits[0]), min(high, limits[1])
    return [float(low), float(high)]


def wilson_interval(accuracy: float, count: int) -> list[float]:
    """Wilson's 95 % interval of a share that was counted in ``count`` trials.

    Example:
        >>> [round(bound, 3) for bound in wilson_interval(1.0, 8)]
        [0.676, 1.0]
    """
    bounds = _wilson_bounds(accuracy, count, np.array([-1.96, 1.96]))
    return [float(bound) for bound in bounds]


def with_spread(accuracies: Floats, num_prompts: int, name: str) -> Floats:
    """The resamples of `bootstrap_accuracy`; where all agree, draws whose percentiles are Wilson's bounds.

    As a part of a mean, a subset whose resamples all agree would count as certain.

    Args:
        accuracies: ``[1 + RESAMPLES]``.
        num_prompts: in the subset.
        name: part of the seed.

    Example:
        >>> drawn = with_spread(np.ones(1001), num_prompts=8, name="one that is always right")
        >>> np.percentile(drawn[1:], [2.5, 97.5]).round(2)
        array([0.68, 1.  ])
    """
    from scipy.special import ndtri

    if np.ptp(accuracies):
        return accuracies
    levels = (np.arange(RESAMPLES) + 0.5) / RESAMPLES
    generator = np.random.default_rng([SEED, *name.encode()])
    z = generator.permutation(ndtri(levels))
    bounds = _wilson_bounds(float(accuracies[0]), num_prompts, z)
    return np.concatenate([accuracies[:1], bounds])


def _wilson_bounds(accuracy: float, n: int, z: Floats) -> Floats:
    """Wilson's bound at each normal quantile, below the accuracy where it is negative."""
    z_squared = z**2
    centre = accuracy + z_squared / (2 * n)
    variance = accuracy * (1 - accuracy) / n + z_squared / (4 * n * n)
    bounds = (centre + z * np.sqrt(variance)) / (1 + z_squared / n)
    return np.clip(bounds, 0.0, 1.0)  # rounding may lead just outside


def spearman(first: Floats, second: Floats) -> float | None:
    """Rank correlation, equal values sharing their mean rank; None where one of the two is constant.

    Example:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 10.0, 5.0]))  # -1.5 / sqrt(2 * 1.5)
        -0.8660254037844387
    """
    from scipy.stats import rankdata

    if not np.ptp(first) or not np.ptp(second):
        return None
    correlation = np.corrcoef(rankdata(first), rankdata(second))
    return float(correlation[0, 1])


def reliability(margins: Floats) -> dict[str, Any]:
    r"""Reliability curve of a judge, and its expected calibration error.

    A judge whose scores differ by :math:`d` predicts its preference with confidence :math:`\sigma(|d|)` (Bradley &
    Terry), from one half to 1, in ten equal bins. Scores on another scale, such as counts, are far from calibrated.

    Args:
        margins: score of the better response less that of the worse, ``[n]``.

    Returns:
        ``error``, the mean distance between confidence and accuracy, and ``bins``, the non-empty ones, each with its
        lower edge ``from``, its ``count``, mean confidence ``sure`` and ``accuracy``.

    Example:
        >>> reliability(np.array([np.log(2), -np.log(2)]))["bins"]  # 2 : 1 odds, and right once in two times
        [{'from': 0.65, 'count': 2, 'sure': 0.66..., 'accuracy': 0.5}]
    """
    confidence = 0.5 + 0.5 * np.tanh(np.abs(margins) / 2)  # the sigmoid, without overflow
    correct = win_score(margins, 0.0)
    bin_index = ((confidence - 0.5) * 2 * NUM_BINS).astype(int)
    bin_index = np.minimum(bin_index, NUM_BINS - 1)
    bins = []
    total_error = 0.0
    for index in np.unique(bin_index):
        in_bin = bin_index == index
        count = int(in_bin.sum())
        mean_confidence = float(confidence[in_bin].mean())
        accuracy = float(correct[in_bin].mean())
        total_error += count * abs(mean_confidence - accuracy)
        bins.append(
            {
                "from": 0.5 + float(index) / (2 * NUM_BINS),
                "count": count,
                "sure": mean_confidence,
                "accuracy": accuracy,
            }
        )
    return {"error": float(total_error / len(margins)), "bins": bins}
