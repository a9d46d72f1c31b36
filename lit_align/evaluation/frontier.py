"""Reward against KL: what optimising a proxy earns in gold, the curves that such runs follow, and where gold turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BEST_OF_N, RL_ITERATIONS, CHECKPOINTS, FIGURES = "best-of-n", "RL", "trained", "figures"
"""Kinds of runs: answers that a reward chose among, iterations of RL, checkpoints that are sampled, and a table."""

MIN_POINTS = 4
"""Points from which a curve of three coefficients is fitted: it then can be wrong."""
MIN_ERRORS = 2.0
"""Standard errors that β is above zero where gold is reported to turn."""


class FrontierPoint(NamedTuple):
    """A policy at some distance from where it began.

    Args:
        kl: KL divergence from the initial policy, in nats per response.
        proxy: mean of the reward that is optimised.
        gold: mean of the reward that is wanted.
        label: which policy this is, such as ``n = 4`` or ``iteration 12``.
    """

    kl: float
    proxy: float
    gold: float
    label: str = ""


class FrontierRun(NamedTuple):
    """The policies that one run of an optimisation went through.

    Args:
        name: of the run.
        method: the kind of run.
        points: in any order.
    """

    name: str
    method: str
    points: tuple[FrontierPoint, ...]


class Curve(NamedTuple):
    r"""Reward as a function of KL; with :math:`d = \sqrt{\mathrm{KL}}` (Gao et al., 2023, section 1).

    .. math::
        R(d) &= R_0 + d\,(\alpha - \beta d)      &\text{best-of-n} \quad (1) \\
        R(d) &= R_0 + d\,(\alpha - \beta \log d) &\text{other methods} \quad (2)

    The numbers are ours. :math:`R_0`, the reward of the initial policy, is fitted too; the paper sets it to 0. Source:
    https://arxiv.org/abs/2210.10760.

    Args:
        is_best_of: whether (1) holds, not (2).
        start: :math:`R_0`.
        alpha: gain at first.
        beta: loss that grows with the distance.
        beta_error: standard error of β.
    """

    is_best_of: bool
    start: float
    alpha: float
    beta: float
    beta_error: float

    def reward(self, kl: Floats) -> Floats:
        """The curve's reward at KL divergences."""
        coefficients = np.array([self.start, self.alpha, -self.beta])
        rewards: Floats = _design(kl, self.is_best_of) @ coefficients
        return rewards

    @property
    def turn(self) -> float | None:
        r"""KL at which the reward is highest, in nats; None where β is not positive, so that it rises on.

        The derivatives of (1) and (2) vanish at :math:`d = \alpha / 2\beta` and :math:`d = e^{\alpha/\beta - 1}`.

        Example:
            >>> Curve(True, start=0.0, alpha=2.0, beta=0.5, beta_error=0.1).turn
            4.0
        """
        if self.beta <= 0:
            return None
        if self.is_best_of:
            return max(self.alpha / (2 * self.beta), 0.0) ** 2
        return math.exp(min(2 * (self.alpha / self.beta - 1), 700.0))


def fit_curve(kl: Sequence[float], reward: Sequence[float], method: str) -> Curve | None:
    """Least squares of (1) or (2); None with fewer than four points, or where they cannot tell the coefficients apart.

    Args:
        kl: of each point, in nats; one below zero, which sampling can give, counts as zero.
        reward: of each point.
        method: the kind of run.

    Example:
        >>> curve = fit_curve([0.0, 1.0, 4.0, 9.0], [1.0, 2.5, 3.0, 2.5], BEST_OF_N)  # 1 + d (2 - d / 2)
        >>> round(curve.start, 6), round(curve.alpha, 6), round(curve.beta, 6), round(curve.turn, 6)
        (1.0, 2.0, 0.5, 4.0)
    """
    is_best_of = method == BEST_OF_N
    design = _design(np.asarray(kl, float), is_best_of)
    if len(kl) < MIN_POINTS or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    target = np.asarray(reward, float)
    coefficients, *_ = np.linalg.lstsq(design, target)
    residuals = target - design @ coefficients
    variance = float(residuals @ residuals) / (len(kl) - design.shape[1])
    covariance = variance * np.linalg.inv(design.T @ design)
    start, alpha, minus_beta = coefficients.tolist()
    return Curve(is_best_of, start, alpha, -minus_beta, math.sqrt(max(covariance[2, 2], 0.0)))


def _design(kl: Floats, is_best_of: bool) -> Floats:
    """Columns that R0, α and -β multiply, ``[n, 3]``."""
    d = np.sqrt(np.maximum(kl, 0.0))
    second = d**2 if is_best_of else d * np.log(np.maximum(d, 1e-300))
    return np.stack([np.ones_like(d), d, second], axis=1)


def summarize(run: FrontierRun) -> dict[str, Any]:
    """Name, method and points of a run, with what `describe` says of them."""
    points = [point._asdict() for point in run.points]
    description = describe(run.points, run.method)
    return {"run": run.name, "method": run.method, "points": points, **description}


def describe(points: Sequence[FrontierPoint], method: str) -> dict[str, Any]:
    """Curves of gold and proxy, and where gold turns: whether its curve bends down within the KL that was reached.

    ``turn`` has the ``kl`` and ``gold`` of the curve's highest point, and whether it was ``seen``: β is two standard
    errors above zero, and policies went further. It is None where no curve was fitted or where it rises on.
    """
    kl = [point.kl for point in points]
    gold = fit_curve(kl, [point.gold for point in points], method)
    proxy = fit_curve(kl, [point.proxy for point in points], method)
    best = max(points, key=lambda point: point.gold)
    description: dict[str, Any] = {
        "best": best._asdict(),
        "largest_kl": max(kl),
        "gold_curve": gold and gold._asdict(),
        "proxy_curve": proxy and proxy._asdict(),
        "turn": None,
    }
    if gold is not None and gold.turn is not None:
        is_sure = gold.beta > MIN_ERRORS * gold.beta_error
        at_turn = float(gold.reward(np.array([gold.turn]))[0])
        seen = is_sure and gold.turn < max(kl)
        description["turn"] = {"kl": gold.turn, "gold": at_turn, "seen": seen}
    return description


def turn_sentence(description: dict[str, Any], gold: str) -> str:
    """Where gold turns, in words.

    Example:
        >>> points = [FrontierPoint(d * d, d, d * (2 - d / 2)) for d in (0, 1, 2, 3, 4)]
        >>> turn_sentence(describe(points, BEST_OF_N), "Nouns")
        'Nouns turns at 4.0 nats, where its curve reaches 2.00; further on, to 16.0 nats, it falls'
    """
    turn, largest = description["turn"], description["largest_kl"]
    if description["gold_curve"] is None:
        return f"too few points for a curve of {gold}; they reach {largest:.1f} nats"
    if turn is None or not turn["seen"]:
        return f"{gold} does not turn within the {largest:.1f} nats that were reached"
    return (
        f"{gold} turns at {turn['kl']:.1f} nats, where its curve reaches {turn['gold']:.2f}; further on, to "
        f"{largest:.1f} nats, it falls"
    )
