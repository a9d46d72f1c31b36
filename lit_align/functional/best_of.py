"""Best-of-n: what the best of n sampled responses is worth, and how far choosing it goes from the model sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def expected_of_best(scores: Sequence[float], values: Sequence[float], n: int) -> float:
    r"""Expected value of the response with the highest score among n, from N samples: the mean over all subsets of n.

    .. math:: \sum_{i=n}^{N} \binom{i-1}{n-1} v_{(i)} \Big/ \binom{N}{n}

    where :math:`v_{(i)}` belongs to the i-th lowest score. Any of the responses with the same score may be the first
    of them, so each stands for all with their mean.

    Args:
        scores: what chooses, ``[N]``.
        values: of the same responses, such as their gold reward, ``[N]``.
        n: responses to choose from, at most N.

    Example:
        Of the pairs of three responses, two have the second as their best and one the first.

        >>> round(expected_of_best([1.0, 2.0, 0.0], [10.0, 40.0, 70.0], n=2), 9)
        30.0
    """
    _, counts, level_of = _levels(scores)
    means = np.bincount(level_of, weights=np.asarray(values, float)) / counts
    ascending = np.repeat(means, counts)
    num_subsets = math.comb(len(ascending), n)
    total = 0.0
    for i, value in enumerate(ascending.tolist(), start=1):
        total += math.comb(i - 1, n - 1) / num_subsets * value
    return total


def best_of_kl(scores: Sequence[float], n: int) -> float:
    r"""KL divergence of the best of n responses from the model that was sampled, in nats.

    With F the distribution of scores, a score s is that of the best with probability
    :math:`q_s = F(s)^n - F(s^-)^n`, where a response has it with :math:`p_s = F(s) - F(s^-)`; among responses with one
    score the first is taken, which changes nothing between them. So

    .. math:: \mathrm{KL} = \sum_s q_s \log \frac{q_s}{p_s}
        \quad \Big(\to \log n - \frac{n-1}{n} \text{ where no two responses have the same score}\Big)

    F is that of the samples. A score that was sampled once is taken for one of a continuum, over its share of F: it
    counts with :math:`\int n u^{n-1} \log (n u^{n-1})\,du`. The usual formula on the right is an upper bound: where
    answers repeat, n of them often hold the best one more than once, and then choosing changes less (Beirami et al.,
    2024, https://arxiv.org/abs/2401.01879).

    Args:
        scores: of the samples for one prompt.
        n: responses to choose from.

    Example:
        Samples that all differ; a fair coin, of which the best of 2 is heads in 3 of 4; and always the same.

        >>> [round(best_of_kl(scores, n=2), 4) for scores in ([1, 2, 3, 4], [0, 0, 1, 1], [1, 1, 1, 1])]
        [0.1931, 0.1308, 0.0]
    """
    _, counts, _ = _levels(scores)
    upper = np.cumsum(counts) / len(scores)
    lower = upper - counts / len(scores)
    chosen = upper**n - lower**n
    atoms = chosen * np.log(np.maximum(chosen, 1e-300) / (upper - lower))
    continuum = chosen * math.log(n) + (n - 1) / n * (
        _entropy_part(upper**n) - _entropy_part(lower**n)
    )
    return float(np.where(counts == 1, continuum, atoms).sum())


def _entropy_part(v: Floats) -> Floats:
    """``v log v - v``, the integral of ``log v``; 0 at 0."""
    return v * np.log(np.maximum(v, 1e-300)) - v


def _levels(scores: Sequence[float]) -> tuple[Floats, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The scores that differ in ascending order, how often each is there, and the place of each sample's."""
    levels, level_of, counts = np.unique(
        np.asarray(scores, float), return_inverse=True, return_counts=True
    )
    return levels, counts, level_of
