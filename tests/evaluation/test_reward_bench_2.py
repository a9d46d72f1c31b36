"""RewardBench 2's scores on small sets, against values by hand from the published definition."""

from math import tanh

import pytest

from lit_align.data.formats.reward_bench_2 import RewardBench2
from lit_align.evaluation.reward_bench_2 import (
    SUBSETS,
    PromptScores,
    best_of_report,
    prompt_scores,
    ties_score,
)
from lit_align.types import Group, Pair


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([3, 1, 2, 0], 1.0), ([3, 3, 2, 0], 0.5), ([1, 1, 1, 1], 0.25), ([2, 3, 1, 0], 0.0)],
)
def test_best_of_four(scores, expected):
    row = {"prompt": "p", "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Math", "id": "1"}
    prompt = prompt_scores(RewardBench2()(row | {"num_correct": 1}), scores)
    assert prompt.best_of == expected
    report = best_of_report([prompt, prompt._replace(right=[9.0])])
    assert report == {
        "subsets": {"math": {"score": (expected + 1) / 2, "prompts": 2}},
        "score": None,
    }


def tied(question, right, wrong):
    return PromptScores("ties", f"tied:{question}", right, wrong)


def reference(question, right, wrong):
    return PromptScores("ties", f"ref:{question}", [right], wrong)


def test_ties_by_hand():
    """Question 1: gap 3 in both, spread 1. Question 2: gap 1 with several, -1 with one, spread 2."""
    prompts = [
        tied(1, [5.0, 4.0], [1.0]),
        reference(1, 4.0, [1.0]),
        tied(2, [5.0, 3.0], [2.0]),
        reference(2, 1.0, [2.0]),
    ]
    accuracy = 0.3 * (1.0 + 0.5)
    preferred = 0.2 * (0.5 + 0.5)
    margin = 0.01 * (tanh(3 / 1 - 1) + tanh(-1 / 2 - 1)) / 2
    assert ties_score(prompts) == pytest.approx(accuracy + preferred + margin)


def test_equal_right_answers_have_the_largest_margin():
    prompts = [tied(1, [5.0, 5.0], [1.0]), reference(1, 5.0, [1.0])]
    assert ties_score(prompts) == pytest.approx(1.01)
    assert ties_score(prompts[:1]) is None


def test_the_mean_is_of_all_six_subsets():
    prompts = [PromptScores(name, "1", [1.0], [0.0]) for name in SUBSETS if name != "ties"]
    assert best_of_report(prompts)["score"] is None
    prompts += [tied(1, [5.0, 5.0], [1.0]), reference(1, 5.0, [1.0])]
    assert best_of_report(prompts)["score"] == pytest.approx((5 + 1.01) / 6)


def test_other_comparisons_have_no_such_score():
    group = Group("p", ["a", "b"], (Pair(0, 1),), extra={"subset": "math-prm"})
    assert prompt_scores(group, [1.0, 0.0]) is None
