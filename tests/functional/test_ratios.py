"""Ratios of sums over prompts: against means and F1 of other libraries, and how often intervals hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_align.functional import ratios
from lit_align.functional.ratios import estimate, estimate_difference, resample_ratio

VERDICTS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


@given(VERDICTS)
def test_f1_is_a_ratio_of_sums(pairs):
    from sklearn.metrics import f1_score

    truth, verdict = zip(*pairs, strict=True)
    sums = [(2.0 * (a and b), float(a) + float(b)) for a, b in pairs]
    value = estimate(resample_ratio(sums, np.arange(len(pairs)))).value
    if not any(truth) and not any(verdict):
        assert value is None
    else:
        assert value == pytest.approx(f1_score(truth, verdict, zero_division=0.0))


def test_answers_to_one_prompt_are_resampled_together():
    sums = [(1.0, 1.0), (0.0, 1.0)] * 50
    apart = estimate(resample_ratio(sums, np.arange(100))).interval
    together = estimate(resample_ratio(sums, np.arange(100) // 2)).interval
    assert apart[1] - apart[0] == pytest.approx(2 * 1.96 * 0.05, abs=0.02)
    assert together == pytest.approx([0.366, 0.634], abs=0.001)  # each prompt is half: Wilson of 50


def test_shares_on_which_all_agree_are_not_certain():
    from statsmodels.stats.proportion import proportion_confint

    interval = estimate(resample_ratio([(1.0, 1.0)] * 12, np.arange(12))).interval
    assert interval == pytest.approx(proportion_confint(12, 12, method="wilson"), abs=1e-4)
    lengths = estimate(resample_ratio([(7.0, 1.0)] * 12, np.arange(12)))
    assert lengths == (7.0, None)  # no share: nothing says how it varies


def test_a_difference_is_paired():
    """Two models that differ on few prompts: the interval is that of these, not of two models apart."""
    random = np.random.default_rng(0)
    first = (random.random(400) < 0.5).astype(float)
    second = np.where(random.random(400) < 0.05, 1 - first, first)
    prompts = np.arange(400)
    resampled = [
        resample_ratio([(value, 1.0) for value in each], prompts) for each in (first, second)
    ]
    difference = estimate_difference(*resampled)
    assert difference.value == pytest.approx(second.mean() - first.mean())
    deviation = (second - first).std() / 20
    low, high = difference.interval
    assert (high - low) / 2 == pytest.approx(1.96 * deviation, rel=0.15)
    assert (high - low) < 0.5 * 2 * 1.96 * (2 * 0.25 / 400) ** 0.5


@pytest.mark.parametrize(("n", "p"), [(10, 0.3), (10, 0.5), (40, 0.2)])
def test_intervals_of_differences_hold_the_truth(n, p, monkeypatch):
    """Of 400 pairs of models without a difference, at least 94 % of intervals must have 0 in them."""
    monkeypatch.setattr(ratios, "RESAMPLES", 200)
    random = np.random.default_rng(0)
    prompts = np.arange(n)
    held = []
    for _ in range(400):
        pair = (random.random((2, n)) < p).astype(float)
        resampled = [resample_ratio([(v, 1.0) for v in each], prompts) for each in pair]
        low, high = estimate_difference(*resampled).interval
        held.append(low <= 0 <= high)
    assert np.mean(held) >= 0.94


def test_nothing_counted_is_no_figure():
    nothing = resample_ratio([(0.0, 0.0)] * 3, np.arange(3))
    some = resample_ratio([(1.0, 1.0)] * 3, np.arange(3))
    assert estimate(nothing) == (None, None)
    assert estimate_difference(nothing, some) == (None, None)
