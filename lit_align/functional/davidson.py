"""Strengths of players from wins, losses and ties: the model of Davidson (1970, https://doi.org/10.2307/2283595)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lit_align.functional.statistics import RESAMPLES, SEED, Floats

Integers = npt.NDArray[np.int64]

PRIOR = 0.01
"""Precision of a normal prior on log-strengths and the log of the tie parameter, which else could be infinite."""


class Comparisons(NamedTuple):
    """Outcomes of comparisons; every field is ``[n]``.

    Args:
        first: number of the first player.
        second: number of the second one.
        outcome: 1 if the first won, 0 if the second did, 1/2 for a tie.
        prompt: number of the prompt, from 0 on, by which the bootstrap resamples.
    """

    first: Integers
    second: Integers
    outcome: Floats
    prompt: Integers

    def take(self, rows: Integers) -> Comparisons:
        """The comparisons at these places."""
        return Comparisons(
            self.first[rows], self.second[rows], self.outcome[rows], self.prompt[rows]
        )


class Strengths(NamedTuple):
    """A fit of Davidson's model.

    Args:
        log_strength: θ of each player, ``[players]``, with mean 0; a difference is the log-odds of winning against
            losing.
        tie: ν, how common ties are: at equal strength a share ν / (2 + ν).
    """

    log_strength: Floats
    tie: float


def fit_strengths(comparisons: Comparisons, players: int) -> Strengths:
    r"""The strengths under which the outcomes are most probable, with a weak normal prior.

    .. math::
        P(i \succ j) = \frac{\pi_i}{\pi_i + \pi_j + \nu\sqrt{\pi_i\pi_j}}, \qquad
        P(i \sim j) = \frac{\nu\sqrt{\pi_i\pi_j}}{\pi_i + \pi_j + \nu\sqrt{\pi_i\pi_j}}, \qquad \pi = e^\theta

    Without ties it is Bradley and Terry's model. Ties that count as half a win each would pull strengths together.

    Args:
        comparisons: of the players.
        players: how many there are.

    Raises:
        ValueError: at an outcome other than 1, 1/2 and 0.

    Example:
        Outcomes as often as the model expects at strengths 3 : 1 and ν = 1, where half wins give log-odds of 0.73:

        >>> wins, ties, losses = 30_000, round(10_000 * 3**0.5), 10_000
        >>> outcome = np.repeat([1.0, 0.5, 0.0], [wins, ties, losses])
        >>> zeros = np.zeros(len(outcome), dtype=int)
        >>> theta, tie = fit_strengths(Comparisons(zeros, zeros + 1, outcome, zeros), players=2)
        >>> round(float(theta[0] - theta[1]), 2), round(tie, 2)
        (1.1, 1.0)
    """
    if not np.isin(comparisons.outcome, (0.0, 0.5, 1.0)).all():
        raise ValueError("an outcome is 1 for a win, 0 for a loss, or 1/2 for a tie")
    return fit_counts(_counts(comparisons, players), players)


def fit_counts(counts: Floats, players: int) -> Strengths:
    """As `fit_strengths`, from how often there was each outcome, which need not be whole numbers.

    Args:
        counts: wins of the first player, ties and wins of the second, for each pair of players in the order
            (0, 1), (0, 2), ..., ``[pairs, 3]``.
        players: how many there are.
    """
    features = _features(players)
    parameters = np.zeros(players + 1)
    for _ in range(100):  # Newton's method on a strictly concave function
        gradient, curvature = _derivatives(features, counts, parameters)
        step = np.linalg.solve(curvature, gradient)
        step_size = np.abs(step).max()
        parameters += step / max(1.0, step_size)
        if step_size < 1e-10:
            break
    log_strength = parameters[:-1] - parameters[:-1].mean()
    return Strengths(log_strength, float(np.exp(parameters[-1])))


def strength_deviations(comparisons: Comparisons, fit: Strengths) -> Floats:
    """Standard deviations of the differences of log-strengths, by the curvature of the fit, ``[players, players]``.

    All comparisons of two players on one prompt count as one. Resamples of few prompts, or of a player that always
    wins, agree more than the data allow; this does not.
    """
    players = len(fit.log_strength)
    keys = np.stack([comparisons.first, comparisons.second, comparisons.prompt])
    counted_once = np.unique(keys, axis=1).shape[1] / keys.shape[1]
    parameters = np.append(fit.log_strength, np.log(fit.tie))
    counts = counted_once * _counts(comparisons, players)
    _, curvature = _derivatives(_features(players), counts, parameters)
    covariance = np.linalg.inv(curvature)[:players, :players]
    variances = np.diag(covariance)
    squares = variances[:, None] + variances[None, :] - 2 * covariance
    deviations: Floats = np.sqrt(np.maximum(squares, 0.0))
    return deviations


def bootstrap_strengths(comparisons: Comparisons, players: int) -> Floats:
    """Log-strengths in bootstrap resamples of the prompts, ``[RESAMPLES, players]``."""
    num_prompts = int(comparisons.prompt.max()) + 1
    order = np.argsort(comparisons.prompt, kind="stable")
    starts = np.searchsorted(comparisons.prompt[order], np.arange(num_prompts + 1))
    rows_of_prompt = [order[starts[k] : starts[k + 1]] for k in range(num_prompts)]
    generator = np.random.default_rng(SEED)
    resamples = []
    for _ in range(RESAMPLES):
        sample = generator.integers(num_prompts, size=num_prompts)
        rows = np.concatenate([rows_of_prompt[k] for k in sample])
        resamples.append(fit_strengths(comparisons.take(rows), players).log_strength)
    return np.array(resamples)


def _features(players: int) -> Floats:
    """What each outcome of each pair adds to its log-probability, ``[pairs, 3, players + 1]``: win, tie, loss."""
    features = []
    for i in range(players):
        for j in range(i + 1, players):
            outcomes = np.zeros((3, players + 1))
            outcomes[0, i] = outcomes[2, j] = outcomes[1, -1] = 1.0
            outcomes[1, [i, j]] = 0.5
            features.append(outcomes)
    return np.array(features)


def _counts(comparisons: Comparisons, players: int) -> Floats:
    """How often each outcome of each pair was seen, ``[pairs, 3]``."""
    table = np.zeros((players, players, 3))
    column = np.rint(2 - 2 * comparisons.outcome).astype(np.int64)
    np.add.at(table, (comparisons.first, comparisons.second, column), 1.0)
    table += table.transpose(1, 0, 2)[:, :, ::-1]
    return table[np.triu_indices(players, 1)]


def _derivatives(features: Floats, counts: Floats, parameters: Floats) -> tuple[Floats, Floats]:
    """Gradient of the log posterior, and the negative of its second derivative."""
    logits = features @ parameters
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    number = counts.sum(1)
    expected = np.einsum("po,pof->pf", probabilities, features)
    gradient = np.einsum("po,pof->f", counts, features) - number @ expected - PRIOR * parameters
    squares = np.einsum("p,po,pof,pog->fg", number, probabilities, features, features)
    curvature = squares - np.einsum("p,pf,pg->fg", number, expected, expected)
    return gradient, curvature + PRIOR * np.eye(len(parameters))
