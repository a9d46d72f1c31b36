"""Win rate of one model against another, length-controlled (Dubois et al., 2024, https://arxiv.org/abs/2404.04475).

Differences from AlpacaEval: the judge sees both orders, an interval is reported, the regression has no difficulty term
for each prompt, and its weights are regularised by a weak prior instead of cross-validation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lit_align.functional.statistics import (
    RESAMPLES,
    SEED,
    Floats,
    accuracy_interval,
    win_score,
)

PRIOR = np.array([0.1, 1.0])
"""Precision of the prior of θ and φ: without one they are infinite where one side always wins."""


def win_rate(
    probabilities: Floats, length_difference: Floats, prompt: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Win rate of the first of two answers, raw and length-controlled, with 95 % intervals by prompt.

    The length-controlled interval reaches as far as the bootstrap's percentiles and as the normal approximation of the
    fit's own posterior: resamples of few prompts, or of answers that all win, agree more than the data allow.

    Args:
        probabilities: that the first answer is better, ``[n]``; 1/2 is a tie, and above 1/2 it wins.
        length_difference: its length less that of the other, ``[n]``, in any unit.
        prompt: an id of the prompt, ``[n]``, by which the bootstrap resamples.

    Example:
        >>> metrics = win_rate(np.array([0.9, 0.6, 0.5, 0.2]), np.zeros(4), np.arange(4))
        >>> metrics["win_rate"], metrics["wins"], metrics["ties"], metrics["losses"]  # (2 + 1/2) / 4
        (0.625, 2, 1, 1)
    """
    wins = win_score(probabilities, 0.5)
    rows_of_prompt = [np.flatnonzero(prompt == prompt_id) for prompt_id in np.unique(prompt)]
    num_prompts = len(rows_of_prompt)
    generator = np.random.default_rng(SEED)
    accuracies, controlled = [wins.mean()], []
    for _ in range(RESAMPLES):
        sample = generator.integers(num_prompts, size=num_prompts)
        rows = np.concatenate([rows_of_prompt[k] for k in sample])
        accuracies.append(wins[rows].mean())
        controlled.append(length_controlled(wins[rows], length_difference[rows])[0])
    rate, slope = length_controlled(wins, length_difference)
    return {
        "prompts": num_prompts,
        "comparisons": len(wins),
        "wins": int((wins == 1).sum()),
        "ties": int((wins == 0.5).sum()),
        "losses": int((wins == 0).sum()),
        "win_rate": float(wins.mean()),
        "interval": accuracy_interval(np.array(accuracies), num_prompts)["interval"],
        "length_controlled": rate,
        "length_controlled_interval": _widest(
            np.percentile(controlled, [2.5, 97.5]),
            _posterior_interval(rate, slope, length_difference, num_prompts),
        ),
        "length_slope": slope,
        "longer": float(win_score(length_difference, 0.0).mean()),
    }


def length_controlled(wins: Floats, length_difference: Floats) -> tuple[float, float]:
    r"""The win rate of equally long answers, and the effect of length in log-odds.

    .. math:: P(\text{win}_i) = \sigma\big(\theta + \phi\tanh(\Delta_i / s)\big), \qquad \text{rate} = \sigma(\theta)

    where Δ is the length difference and s its standard deviation; θ and φ maximise the likelihood of the wins (a tie is
    half a win) under a weak normal prior.

    Args:
        wins: ``[n]``, 1, 0 or 1/2.
        length_difference: Δ, ``[n]``.

    Example:
        The longer answer always wins, and each side is longer once in two times: length explains it all.

        >>> rate, slope = length_controlled(np.array([1.0, 0.0] * 50), np.array([9.0, -9.0] * 50))
        >>> round(rate, 6), slope > 3
        (0.5, True)
    """
    features = _features(length_difference)
    weights = np.zeros(2)
    for _ in range(50):  # Newton's method on a strictly convex loss
        p = _sigmoid(features @ weights)
        gradient = features.T @ (p - wins) + PRIOR * weights
        step = np.linalg.solve(_curvature(features, p * (1 - p)), gradient)
        step_size = np.abs(step).max()
        weights -= step / max(1.0, step_size)
        if step_size < 1e-10:
            break
    return float(_sigmoid(weights[0])), float(weights[1])


def _features(length_difference: Floats) -> Floats:
    scale = length_difference.std() or 1.0
    return np.stack([np.ones_like(length_difference), np.tanh(length_difference / scale)], axis=1)


def _curvature(features: Floats, weight: Floats) -> Floats:
    """Second derivative of the negative log posterior, ``[2, 2]``, with the weight of each comparison, ``[n]``."""
    curvature: Floats = (features.T * weight) @ features + np.diag(PRIOR)
    return curvature


def _posterior_interval(
    rate: float, slope: float, length_difference: Floats, num_prompts: int
) -> Floats:
    """95 % interval of the rate by the curvature of its posterior; all comparisons of a prompt count as one."""
    features = _features(length_difference)
    log_odds = np.log(rate / (1 - rate))
    p = _sigmoid(features @ np.array([log_odds, slope]))
    weight = p * (1 - p) * num_prompts / len(p)
    deviation = np.linalg.inv(_curvature(features, weight))[0, 0] ** 0.5
    ends: Floats = _sigmoid(log_odds + np.array([-1.96, 1.96]) * deviation)
    return ends


def _widest(first: Floats, second: Floats) -> list[float]:
    """The interval from the lower of two lower ends to the higher of two higher ones."""
    return [float(min(first[0], second[0])), float(max(first[1], second[1]))]


def _sigmoid(x: Any) -> Any:
    return 0.5 + 0.5 * np.tanh(x / 2)
