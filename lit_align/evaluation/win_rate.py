"""How often one model's answers beat another's (controlled: Dubois et al., 2024, https://arxiv.org/abs/2404.04475).

What differs from AlpacaEval: both orders are asked, an interval is given, prompts have no difficulty of their own in
the regression, and its weights are held by a weak prior instead of by cross-validation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lit_align.evaluation.reward_bench import RESAMPLES, SEED, estimate

Floats = npt.NDArray[np.float64]

PRIOR = np.array([0.1, 1.0])
"""Precision of the prior of θ and φ: without one they are infinite where one side always wins."""


def win_rate(chances: Floats, longer: Floats, prompt: npt.NDArray[np.int64]) -> dict[str, Any]:
    """How often the first of two answers wins, raw and if both were equally long, with 95 % intervals by prompt.

    Args:
        chances: that it is the better one, ``[n]``; 1/2 is a tie, and above 1/2 it wins.
        longer: its length less that of the other, ``[n]``, in any unit.
        prompt: a number for what was asked, ``[n]``, by which the bootstrap draws.

    Example:
        >>> found = win_rate(np.array([0.9, 0.6, 0.5, 0.2]), np.zeros(4), np.arange(4))
        >>> found["win_rate"], found["wins"], found["ties"], found["losses"]  # (2 + 1/2) / 4
        (0.625, 2, 1, 1)
    """
    won = np.sign(chances - 0.5) / 2 + 0.5
    of_prompt = [np.flatnonzero(prompt == one) for one in np.unique(prompt)]
    generator = np.random.default_rng(SEED)
    picks = [generator.integers(len(of_prompt), size=len(of_prompt)) for _ in range(RESAMPLES)]
    rows = [np.concatenate([of_prompt[k] for k in pick]) for pick in picks]
    raw = [won[row].mean() for row in rows]
    controlled = [length_controlled(won[row], longer[row])[0] for row in rows]
    rate, slope = length_controlled(won, longer)
    return {
        "prompts": len(of_prompt),
        "comparisons": len(won),
        "wins": int((won == 1).sum()),
        "ties": int((won == 0.5).sum()),
        "losses": int((won == 0).sum()),
        "win_rate": float(won.mean()),
        "interval": estimate(np.array([won.mean(), *raw]), len(of_prompt))["interval"],
        "length_controlled": rate,
        "length_controlled_interval": np.percentile(controlled, [2.5, 97.5]).tolist(),
        "length_slope": slope,
        "longer": float((np.sign(longer) / 2 + 0.5).mean()),
    }


def length_controlled(won: Floats, longer: Floats) -> tuple[float, float]:
    r"""The win rate of equally long answers, and what length is worth in log-odds.

    .. math:: P(\text{win}_i) = \sigma\big(\theta + \phi\tanh(\Delta_i / s)\big), \qquad \text{rate} = \sigma(\theta)

    where Δ is by how much the answer is longer and s its standard deviation; θ and φ maximise the likelihood of what
    was won (a tie is half won) under a weak normal prior.

    Args:
        won: ``[n]``, 1, 0 or 1/2.
        longer: Δ, ``[n]``.

    Example:
        The longer answer always wins, and each side is longer once in two times: length explains it all.

        >>> rate, slope = length_controlled(np.array([1.0, 0.0] * 50), np.array([9.0, -9.0] * 50))
        >>> round(rate, 6), slope > 3
        (0.5, True)
    """
    features = np.stack([np.ones_like(longer), np.tanh(longer / (longer.std() or 1.0))], 1)
    weights = np.zeros(2)
    for _ in range(50):  # Newton's method on a strictly convex loss
        p = 0.5 + 0.5 * np.tanh(features @ weights / 2)
        gradient = features.T @ (p - won) + PRIOR * weights
        step = np.linalg.solve((features.T * (p * (1 - p))) @ features + np.diag(PRIOR), gradient)
        weights -= step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-10:
            break
    return float(0.5 + 0.5 * np.tanh(weights[0] / 2)), float(weights[1])
