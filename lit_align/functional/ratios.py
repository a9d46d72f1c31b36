"""Ratios of sums over prompts, such as an accuracy or an F1: values, bootstrap intervals, paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lit_align.functional.statistics import (
    RESAMPLES,
    SEED,
    Floats,
    resampled_interval,
    wilson_interval,
)

Z_SQUARED = 1.96**2


class Estimate(NamedTuple):
    """A figure and how sure it is.

    Args:
        value: the figure; None if nothing was counted.
        interval: of 95 %; None where the resamples agree on a value that is no share.
    """

    value: float | None
    interval: list[float] | None


class Resampled(NamedTuple):
    """A ratio in all prompts and in each bootstrap resample of them.

    Args:
        ratios: ``[1 + RESAMPLES]``, the first over all prompts; NaN where nothing was counted.
        num_prompts: prompts that were counted at all.
        is_share: whether every prompt's numerator is from 0 to its denominator.
    """

    ratios: Floats
    num_prompts: int
    is_share: bool


def resample_ratio(
    sums: Sequence[tuple[float, float]], prompts: npt.NDArray[np.int64], seed: str = ""
) -> Resampled:
    r"""The ratio :math:`\sum_i a_i / \sum_i b_i` over all prompts, and over each bootstrap resample of them.

    A mean has :math:`b_i = 1`, an accuracy over some of the prompts has :math:`b_i = 0` elsewhere, and
    :math:`F_1 = 2TP / (2TP + FP + FN)` is such a ratio too. The same seed and prompts give the same resamples, so that
    two models can be compared prompt by prompt.

    Args:
        sums: numerator and denominator of each item.
        prompts: ``[n]``, numbers of the items' prompts from 0 on; items of one prompt are resampled together.
        seed: a name that the random numbers depend on.

    Example:
        >>> float(resample_ratio([(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)], np.arange(3)).ratios[0])
        0.5
    """
    values = np.array(sums, dtype=np.float64).reshape(-1, 2)
    numerators = np.bincount(prompts, values[:, 0])
    denominators = np.bincount(prompts, values[:, 1])
    count = len(denominators)
    generator = np.random.default_rng([SEED, *seed.encode()])
    ratios = [_ratio(numerators.sum(), denominators.sum())]
    for _ in range(RESAMPLES):
        sample = generator.integers(count, size=count)
        ratios.append(_ratio(numerators[sample].sum(), denominators[sample].sum()))
    is_share = bool(((numerators >= 0) & (numerators <= denominators + 1e-9)).all())
    return Resampled(np.array(ratios), int((denominators > 0).sum()), is_share)


def estimate(resampled: Resampled) -> Estimate:
    """The ratio with its 95 % interval; Wilson's interval of a share on which all resamples agree.

    Otherwise it is `resampled_interval`.

    Example:
        >>> estimate(resample_ratio([(1.0, 1.0)] * 8, np.arange(8)))  # 8 / (8 + 1.96²)
        Estimate(value=1.0, interval=[0.675..., 1.0])
    """
    value = float(resampled.ratios[0])
    if np.isnan(value):
        return Estimate(None, None)
    limits = (0.0, 1.0) if resampled.is_share else None
    interval = resampled_interval(resampled.ratios, resampled.num_prompts, limits)
    if interval is None and resampled.is_share:
        interval = wilson_interval(value, resampled.num_prompts)
    return Estimate(value, interval)


def estimate_difference(first: Resampled, second: Resampled) -> Estimate:
    r"""The second ratio less the first, over the same prompts and resamples, with its 95 % interval.

    Where all resamples agree, as for two models with equal answers, up to :math:`z^2 / (n + z^2)` of other prompts
    could differ (Wilson's bound on a share that was never seen).

    Args:
        first: of the model that is compared with.
        second: of another model; with the prompts and the seed of the first.

    Example:
        >>> prompts = np.arange(8)
        >>> half = resample_ratio([(1.0, 1.0)] * 4 + [(0.0, 1.0)] * 4, prompts)
        >>> estimate_difference(half, half)  # 1.96² / (8 + 1.96²)
        Estimate(value=0.0, interval=[-0.324..., 0.324...])
    """
    differences = second.ratios - first.ratios
    value = float(differences[0])
    if np.isnan(value):
        return Estimate(None, None)
    num_prompts = min(first.num_prompts, second.num_prompts)
    is_share = first.is_share and second.is_share
    interval = resampled_interval(differences, num_prompts, (-1.0, 1.0) if is_share else None)
    if interval is None and is_share:
        unseen = Z_SQUARED / (num_prompts + Z_SQUARED)
        interval = [max(value - unseen, -1.0), min(value + unseen, 1.0)]
    return Estimate(value, interval)


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else float("nan")
