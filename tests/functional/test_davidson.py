"""Davidson's strengths: against another optimiser in float64, a closed form, Bradley-Terry, and drawn outcomes."""

import numpy as np
import pytest
from scipy.optimize import minimize

from lit_align.functional import davidson
from lit_align.functional.davidson import (
    PRIOR,
    Comparisons,
    bootstrap_strengths,
    fit_strengths,
    strength_deviations,
)


def drawn(theta, tie, per_pair, seed=0) -> Comparisons:
    """Outcomes by the model, in a random order of the two players."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(len(theta)):
        for j in range(i + 1, len(theta)):
            for prompt in range(per_pair):
                first, second = (i, j) if random.random() < 0.5 else (j, i)
                strengths = np.exp([theta[first], theta[second]])
                weights = np.array([strengths[0], tie * strengths.prod() ** 0.5, strengths[1]])
                rows.append((first, second, random.choice(3, p=weights / weights.sum()), prompt))
    first, second, result, prompt = np.array(rows).T
    return Comparisons(first, second, 1 - result / 2, prompt)


def test_the_fit_is_that_of_another_optimiser():
    """The likelihood written out comparison by comparison in π and ν, minimised without derivatives of ours."""
    comparisons = drawn([0.8, 0.0, -0.3, -0.5], 0.7, 30)

    def loss(parameters):
        theta, log_tie = parameters[:-1], parameters[-1]
        total = PRIOR * (parameters**2).sum() / 2
        for first, second, result in zip(*comparisons[:3], strict=True):
            a, b = np.exp(theta[first]), np.exp(theta[second])
            tie = np.exp(log_tie) * np.sqrt(a * b)
            chosen = {1.0: a, 0.5: tie, 0.0: b}[result]
            total -= np.log(chosen / (a + b + tie))
        return total

    other = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-6}).x
    fit = fit_strengths(comparisons, 4)
    np.testing.assert_allclose(fit.log_strength, other[:-1] - other[:-1].mean(), atol=1e-5)
    assert fit.tie == pytest.approx(np.exp(other[-1]), abs=1e-5)


def test_half_wins_would_shrink_a_strength_of_log_3():
    """At ν = 1: wins 3, ties √3, losses 1. Half wins give log (3 + √3/2) / (1 + √3/2) = 0.73."""
    counts = np.rint(1e6 * np.array([3, 3**0.5, 1])).astype(int)
    outcome = np.repeat([1.0, 0.5, 0.0], counts)
    zeros = np.zeros(len(outcome), dtype=int)
    fit = fit_strengths(Comparisons(zeros, zeros + 1, outcome, zeros), 2)
    assert fit.log_strength[0] - fit.log_strength[1] == pytest.approx(np.log(3), abs=1e-5)
    assert fit.tie == pytest.approx(1, abs=1e-5)
    share = outcome.mean()
    assert np.log(share / (1 - share)) == pytest.approx(0.73, abs=0.005)


def test_without_ties_it_is_bradley_and_terrys_model():
    wins, losses = 300, 100
    outcome = np.repeat([1.0, 0.0], [wins, losses])
    zeros = np.zeros(len(outcome), dtype=int)
    fit = fit_strengths(Comparisons(zeros, zeros + 1, outcome, zeros), 2)
    assert fit.log_strength[0] - fit.log_strength[1] == pytest.approx(np.log(3), abs=1e-3)


def test_the_order_of_players_and_comparisons_does_not_matter():
    comparisons = drawn([0.5, 0.0, -0.5], 0.5, 20)
    fit = fit_strengths(comparisons, 3)
    turned = Comparisons(
        comparisons.second, comparisons.first, 1 - comparisons.outcome, comparisons.prompt
    )
    shuffled = turned.take(np.random.default_rng(0).permutation(60))
    np.testing.assert_allclose(fit_strengths(shuffled, 3).log_strength, fit.log_strength, atol=1e-9)


def test_a_player_that_always_wins_is_not_infinitely_sure():
    ones = np.ones(8, dtype=int)
    comparisons = Comparisons(0 * ones, ones, np.ones(8), np.arange(8))
    fit = fit_strengths(comparisons, 2)
    assert 2 < fit.log_strength[0] - fit.log_strength[1] < 20
    assert strength_deviations(comparisons, fit)[0, 1] > 1


def test_deviations_are_those_of_drawn_outcomes(monkeypatch):
    """Of 200 sets: what the curvature says, what the bootstrap says, and how far fits are from each other."""
    monkeypatch.setattr(davidson, "RESAMPLES", 200)
    theta = [0.6, 0.0, -0.6]
    fits = [fit_strengths(drawn(theta, 0.5, 60, seed), 3).log_strength for seed in range(200)]
    spread = np.std([fit[0] - fit[1] for fit in fits])
    comparisons = drawn(theta, 0.5, 60)
    fit = fit_strengths(comparisons, 3)
    assert strength_deviations(comparisons, fit)[0, 1] == pytest.approx(spread, rel=0.2)
    resamples = bootstrap_strengths(comparisons, 3)
    assert np.std(resamples[:, 0] - resamples[:, 1]) == pytest.approx(spread, rel=0.35)
    assert np.mean([fit[0] - fit[1] for fit in fits]) == pytest.approx(
        0.6, abs=3 * spread / 200**0.5 + 0.02
    )


def test_an_outcome_is_a_win_a_loss_or_a_tie():
    zeros = np.zeros(1, dtype=int)
    with pytest.raises(ValueError, match="1 for a win, 0 for a loss, or 1/2 for a tie"):
        fit_strengths(Comparisons(zeros, zeros + 1, np.array([0.7]), zeros), 2)
