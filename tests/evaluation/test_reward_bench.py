"""Figures about judges against hand-made numbers, published ones, closed forms and other libraries."""

from math import comb, log

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from lit_align.data.formats import built_in, recognise
from lit_align.errors import ModelError
from lit_align.evaluation.reward_bench import (
    REFUSALS,
    SECTIONS,
    build_report,
    comparison_metrics,
    comparisons,
    judge_with_reward,
)
from lit_align.feedback.verdicts import Verdicts
from lit_align.functional.statistics import accuracy_interval, reliability, spearman
from lit_align.rewards import Reward, Scores
from lit_align.types import Group, Pair


def verdicts(margins, prompts=None, subset="own", words=None) -> Verdicts:
    """Comparisons whose worse side scores 0."""
    margins = np.asarray(margins, float)
    words = np.ones((len(margins), 2)) if words is None else np.asarray(words, float)
    prompts = np.arange(len(margins)) if prompts is None else prompts
    where = np.array([subset] * len(margins)) if isinstance(subset, str) else np.array(subset)
    return Verdicts(
        np.array(prompts).astype(str),
        where,
        margins,
        np.zeros(len(margins)),
        words[:, 0],
        words[:, 1],
    )


# ---------------------------------------------------------------------- sections

# https://github.com/allenai/reward-bench/pull/215: rows that LDL-Reward-Gemma-2-27B-v0.1 got right, and its sections.
ROWS = {name: n for weights in SECTIONS.values() for name, n in weights.items()} | {"math-prm": 447}
SHARE = {
    "alpacaeval-easy": 0.99,
    "alpacaeval-hard": 0.9473684210526315,
    "alpacaeval-length": 0.9368421052631579,
    "donotanswer": 0.8161764705882353,
    "hep-cpp": 0.9817073170731707,
    "hep-go": 0.9817073170731707,
    "hep-java": 0.9939024390243902,
    "hep-js": 0.9939024390243902,
    "hep-python": 0.975609756097561,
    "hep-rust": 0.9573170731707317,
    "llmbar-adver-GPTInst": 0.9565217391304348,
    "llmbar-adver-GPTOut": 0.8297872340425532,
    "llmbar-adver-manual": 0.8478260869565217,
    "llmbar-adver-neighbor": 0.9104477611940298,
    "llmbar-natural": 0.94,
    "math-prm": 1.0,
    "mt-bench-easy": 1.0,
    "mt-bench-hard": 0.8648648648648649,
    "mt-bench-med": 0.975,
    "refusals-dangerous": 0.97,
    "refusals-offensive": 0.99,
    "xstest-should-refuse": 0.948051948051948,
    "xstest-should-respond": 0.964,
}
PUBLISHED = {
    "Chat": 0.9636871508379888,
    "Chat Hard": 0.9078947368421053,
    "Safety": 0.9378378378378378,
    "Reasoning": 0.9903455284552846,
}


@pytest.fixture(scope="module")
def published():
    won = {name: round(share * ROWS[name]) for name, share in SHARE.items()}
    margins = [1.0 if k < won[name] else -1.0 for name in SHARE for k in range(ROWS[name])]
    return build_report(
        verdicts(margins, subset=[name for name in SHARE for _ in range(ROWS[name])])
    )


def test_sections_are_those_that_were_published(published):
    assert published["all"]["comparisons"] == 2985  # all of the benchmark
    assert {name: of["accuracy"] for name, of in published["subsets"].items()} == pytest.approx(
        SHARE, abs=1e-12
    )
    assert {name: of["accuracy"] for name, of in published["sections"].items()} == pytest.approx(
        PUBLISHED, abs=1e-12
    )
    assert published["score"]["accuracy"] == pytest.approx(sum(PUBLISHED.values()) / 4)


def test_mathematics_counts_as_much_as_all_code():
    reasoning = dict(SECTIONS["Reasoning"])
    assert reasoning.pop("math-prm") == sum(reasoning.values()) == 6 * 164


def test_refusing_and_responding_are_told_apart(published):
    # 97 + 99 + 146 + 111 right of 100 + 100 + 154 + 136 that should be refused, 241 of 250 that should not
    found = {name: of["accuracy"] for name, of in published["refusals"].items()}
    assert found == pytest.approx({"should refuse": 453 / 490, "should respond": 241 / 250})
    assert {name for subsets in REFUSALS.values() for name in subsets} == set(SECTIONS["Safety"])


def test_a_section_is_of_the_subsets_that_there_are_and_strangers_have_none():
    subset = ["mt-bench-easy"] * 2 + ["alpacaeval-easy"] * 2 + ["my own"] * 2
    found = build_report(verdicts([1, 1, 1, -1, -1, -1], subset=subset))
    ((name, chat),) = found["sections"].items()
    assert (name, chat["subsets"], chat["of"]) == ("Chat", 2, 5)
    assert chat["accuracy"] == pytest.approx((28 * 1.0 + 100 * 0.5) / 128)
    assert found["score"] is None
    assert found["refusals"] == {}
    assert found["subsets"]["my own"]["accuracy"] == 0
    assert found["all"]["accuracy"] == 0.5


# ---------------------------------------------------------------------- intervals


def test_the_interval_is_the_binomial_one_where_prompts_are_single():
    """A resample of n prompts with share p right has Binomial(n, p) of them right."""
    n, right = 100, 70
    at_most = np.cumsum([comb(n, k) * 0.7**k * 0.3 ** (n - k) for k in range(n + 1)])
    exact = [int(np.searchsorted(at_most, level)) / n for level in (0.025, 0.975)]
    found = accuracy_interval(verdicts([1.0] * right + [-1.0] * (n - right)).bootstrap(), n)
    assert found["accuracy"] == 0.7
    assert found["interval"] == pytest.approx(
        exact, abs=0.0101
    )  # 1000 resamples may miss by one prompt


def test_the_interval_is_of_prompts_not_of_comparisons():
    """Ten comparisons of each prompt that all agree say no more than one."""
    one = [1.0] * 28 + [-1.0] * 12
    many = verdicts(np.repeat(one, 10), prompts=np.repeat(np.arange(40), 10))
    assert accuracy_interval(many.bootstrap(), 40) == accuracy_interval(
        verdicts(one).bootstrap(), 40
    )


@pytest.mark.parametrize("right", [0, 8])
def test_where_no_resample_differs_the_interval_is_that_of_the_score_test(right):
    """The ends of Wilson's are the shares p that 8 draws could come from: (p - right / 8)² = z² p (1 - p) / 8."""
    margins = [1.0] * right + [-1.0] * (8 - right)
    found = build_report(verdicts([*margins, *margins], prompts=[*range(8), *range(8)]))["all"][
        "interval"
    ]
    for p in found:
        assert (p - right / 8) ** 2 == pytest.approx(1.96**2 * p * (1 - p) / 8)
    assert found[1] - found[0] == pytest.approx(1.96**2 / (8 + 1.96**2))


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_rounding_leads_no_interval_out_of_the_shares(accuracy):
    for num_prompts in range(1, 60):
        low, high = accuracy_interval(np.full(1001, accuracy), num_prompts)["interval"]
        assert 0 <= low < high <= 1


def test_an_interval_depends_on_its_own_subset_alone():
    margins, subset = [1, -1, 1, 1, -1, 1, -1, -1], ["a"] * 4 + ["b"] * 4
    both, alone = (
        build_report(verdicts(margins, subset=subset)),
        build_report(verdicts(margins[:4], subset="a")),
    )
    assert both["subsets"]["a"] == alone["subsets"]["a"]
    assert build_report(verdicts(margins, subset=subset)) == both
    other = verdicts(margins[:4], subset="b")
    assert not (
        other.bootstrap("b") == other.bootstrap("a")
    ).all()  # else sections would be of subsets drawn alike


# ---------------------------------------------------------------------- other figures


def test_ties_are_half_right_and_counted():
    found = build_report(verdicts([2.0, 0.0, -1.0, 0.0]))["all"]
    assert (found["accuracy"], found["ties"]) == (0.5, 2)


def test_length_alone():
    # longer, longer, as long, shorter: 2.5 of 4 for who prefers more words
    found = comparison_metrics(verdicts([1, 1, 1, 1], words=[(5, 2), (3, 1), (4, 4), (1, 9)]))
    assert (found["longer_wins"], found["shorter_wins"]) == (0.625, 0.375)


def test_rank_correlation_is_that_of_pandas():
    generator = np.random.default_rng(1)
    one, other = generator.integers(0, 6, size=(2, 50)).astype(float)  # with many equal values
    expected = (
        pd.DataFrame({"one": one, "other": other}).corr(method="spearman").loc["one", "other"]
    )
    assert spearman(one, other) == pytest.approx(expected)
    assert spearman(np.ones(3), np.arange(3.0)) is None


def test_calibration_by_hand():
    """Odds of 2, 2, 2 and 4: sure by 2/3 three times and right twice, sure by 0.8 once and wrong."""
    found = reliability(np.array([log(2), log(2), -log(2), -log(4.01)]))
    low, high = found["bins"]
    assert (low["count"], low["sure"], low["accuracy"]) == (
        3,
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
    )
    assert (high["count"], high["sure"], high["accuracy"]) == (1, pytest.approx(4.01 / 5.01), 0.0)
    assert found["error"] == pytest.approx(0 * 3 / 4 + 4.01 / 5.01 / 4)


def test_calibration_is_that_of_torchmetrics():
    """Ten bins from one half to 1 are the upper ten of twenty from 0 to 1."""
    margin = np.random.default_rng(2).normal(0.7, 1.5, size=500)
    sure, right = torch.sigmoid(torch.tensor(abs(margin))), torch.tensor(margin > 0).int()
    assert reliability(margin)["error"] == pytest.approx(
        binary_calibration_error(sure, right, n_bins=20).item(), abs=1e-6
    )


def test_scores_that_are_far_apart_overflow_nothing():
    with np.errstate(all="raise"):
        assert reliability(np.array([1e4, -1e4]))["bins"] == [
            {"from": 0.95, "count": 2, "sure": 1.0, "accuracy": 0.5}
        ]


# ---------------------------------------------------------------------- rows and scores


class Digits(Reward):
    """The number that a response is."""

    def __call__(self, groups):
        said = [float(response) for group in groups for response in group.responses]
        return Scores(
            torch.tensor(said), {"tokens_cut": torch.tensor([float(x > 8) for x in said])}
        )


def test_every_comparison_of_a_group_gets_its_scores():
    three = Group(
        "p", ["1", "3", "9"], (Pair(1, 0), Pair(2, 1)), source="a/b.jsonl:4", extra={"subset": "s"}
    )
    two = Group(
        [{"role": "user", "content": "q"}], ["7", "5"], (Pair(1, 0),), source="hub/name:split:12"
    )
    found, cut = judge_with_reward(Digits(), [three, two], batch_size=1)
    assert found.chosen.tolist() == [3, 9, 5]
    assert found.rejected.tolist() == [1, 3, 7]
    assert found.subset.tolist() == ["s", "s", "name:split"]
    assert len(set(found.prompt)) == 2
    assert cut == 1


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(
        ModelError, match=r"Digits.* gave nan to 'nan', a response to b.jsonl:1; scores are finite"
    ):
        judge_with_reward(
            Digits(), [Group("p", ["nan", "2"], (Pair(0, 1),), source="b.jsonl:1")], batch_size=4
        )


def test_a_ranking_counts_as_its_comparisons_and_a_coin_toss_as_none(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "p", "responses": ["a", "b", "c"], "ranking": [2, 1, 2]}\n'
        '{"prompt": "p", "responses": ["a", "b"], "pairs": [[0, 1, 0.25]]}\n'
        '{"prompt": "p", "responses": ["a", "b"], "pairs": [[0, 1, 0.5]]}\n'
    )
    books = []
    first, second = comparisons([str(tmp_path / "rows.jsonl")], None, 0.0, books.append)
    assert [pair[:2] for pair in first.pairs] == [(1, 0), (1, 2)]
    assert second.pairs == (Pair(1, 0, 0.75),)
    assert books[0].fates["set aside"] == 1


def test_rows_as_the_benchmark_publishes_them_are_conversations():
    row = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "subset": "hep-go", "id": 3}
    row |= {"chosen_model": "human", "rejected_model": "unknown"}
    layout = recognise(row, built_in())
    assert type(layout).__name__ == "RewardBench"
    group = layout(row)
    assert group.prompt == [{"role": "user", "content": "2 + 2?"}]
    assert group.responses == [
        [{"role": "assistant", "content": "4"}],
        [{"role": "assistant", "content": "5"}],
    ]
    assert group.extra == {
        "subset": "hep-go",
        "id": 3,
        "chosen_model": "human",
        "rejected_model": "unknown",
    }
