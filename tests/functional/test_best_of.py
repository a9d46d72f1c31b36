"""Best-of-n against all tuples and all subsets."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_align.functional.best_of import best_of_kl, expected_of_best

SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


def divergence_over_tuples(probabilities, scores, n):
    """KL of the best of n answers, the first of equal ones, from all n-tuples of answers."""
    chosen = [0.0] * len(scores)
    for answers in itertools.product(range(len(scores)), repeat=n):
        best = max(answers, key=scores.__getitem__)
        chosen[best] += math.prod(probabilities[answer] for answer in answers)
    return sum(q * math.log(q / p) for q, p in zip(chosen, probabilities, strict=True) if q)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_where_answers_repeat_it_is_the_divergence_of_what_is_chosen(n):
    """Five answers, two of them with one score; samples in the ratio of their probabilities."""
    counts, scores = [4, 2, 6, 2, 6], [0.0, 1.0, 1.0, 5.0, -2.0]
    probabilities = [count / 20 for count in counts]
    samples = [score for count, score in zip(counts, scores, strict=True) for _ in range(count)]
    expected = divergence_over_tuples(probabilities, scores, n)
    assert best_of_kl(samples, n) == pytest.approx(expected, abs=1e-12)
    assert n == 1 or expected < math.log(n) - (n - 1) / n


@given(SCORES, st.integers(1, 9))
def test_the_formula_is_an_upper_bound(scores, n):
    bound = math.log(n) - (n - 1) / n
    assert -1e-9 <= best_of_kl(scores, n) <= bound + 1e-9


@given(st.integers(1, 12), st.integers(1, 9))
def test_it_is_tight_where_no_two_answers_have_the_same_score(count, n):
    bound = math.log(n) - (n - 1) / n
    assert best_of_kl(list(map(float, range(count))), n) == pytest.approx(bound, abs=1e-9)


@given(
    st.lists(st.tuples(st.integers(-2, 2), st.integers(-9, 9)), min_size=1, max_size=6), st.data()
)
def test_the_expected_value_is_the_mean_over_all_orders_of_subsets(answers, data):
    n = data.draw(st.integers(1, len(answers)))
    best = [
        max(some, key=lambda answer: answer[0])[1] for some in itertools.permutations(answers, n)
    ]
    scores, values = (list(map(float, column)) for column in zip(*answers, strict=True))
    assert expected_of_best(scores, values, n) == pytest.approx(sum(best) / len(best), abs=1e-9)
