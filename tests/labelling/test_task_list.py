"""What the admin sees of tasks and their votes, and the one coefficient with its interval."""

import math

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.labelling.aggregation import Label
from lit_align.labelling.alpha import MIN_TASKS, alphas_of_coincidences, estimate_alpha
from lit_align.labelling.task_list import summarise_tasks, vote_lines
from lit_align.labelling.votes import read_votes
from lit_align.types import Group, Pair
from tests.labelling.serving import Visitor, make_groups, serving
from tests.labelling.test_human import store_with_votes

GOLD = [Group("Known?", ["right", "wrong"], (Pair(0, 1),))]
ANSWERS = {"ada": [-3, 1, 0, -1, 2], "bob": [-1, -2, 0, None, -1]}


@pytest.mark.parametrize(
    ("kind", "answers", "disagrees"),
    [
        ("compare", ([-3], [-1]), False),  # by another strength
        ("compare", ([1], [0]), True),
        ("rank", ([[1, 2]], [[1, 2]]), False),
        ("rank", ([[1, 2]], [[1, 1]]), True),
        ("rate", ([(3, False)], [(4, True)]), False),  # a rating one off
        ("rate", ([(3, False)], [(5, False)]), True),
        ("thumbs", ([True], [False]), True),
    ],
)
def test_what_is_a_disagreement(tmp_path, kind, answers, disagrees):
    group = make_groups(1, 2 if kind in ("compare", "rank") else 1)
    path = store_with_votes(tmp_path / "l.db", kind, group, dict(zip("ab", answers, strict=True)))
    [summary] = summarise_tasks(read_votes(path))
    assert (summary.disagrees, summary.num_votes) == (disagrees, 2)


def test_tasks_are_listed_filtered_and_shown_with_every_answer(tmp_path):
    path = tmp_path / "l.db"
    store_with_votes(path, "compare", make_groups(4), ANSWERS, GOLD)
    with serving(path) as (store, port):
        ada = store.fetch_one("SELECT id FROM people WHERE name = 'ada'")[0]
        store.record_vote(ada, 3, 2, "vote", {"preference": 1}, "now I see <b>it</b>")
        boss = Visitor(port, store.invite("boss", admin=True))
        listed = {}
        for name in ("all", "disagreements", "notes", "skipped"):
            text = boss.get(f"/admin/tasks?show={name}")
            listed[name] = [k for k in range(1, 6) if f'/admin/tasks/{k}"' in text]
        assert listed == {
            **{"all": [1, 2, 3, 4, 5], "disagreements": [2, 3, 5], "notes": [3], "skipped": [4]}
        }
        text = boss.get("/admin/tasks/3")
        assert "now I see &lt;b&gt;it&lt;/b&gt;" in text
        assert "does not count" in text  # the answer that was replaced
        assert "UTC" in text
        assert "gold: Response 1 is better" in boss.get("/admin/tasks/5")
        for query, status in (("show=x", 422), ("page=0", 422), ("page=99", 200)):
            assert boss.ask("GET", f"/admin/tasks?{query}")[0] == status
        assert boss.ask("GET", "/admin/tasks/6")[0] == 404
        lines = vote_lines(read_votes(path), 3, {})
    assert [(line.annotator, line.counts) for line in lines] == [
        *(("ada", False), ("bob", True), ("ada", True))
    ]
    data = read_votes(path)
    for number, (first, second) in enumerate(zip(*ANSWERS.values(), strict=True), 1):
        for line, answer in zip(vote_lines(data, number, {})[:2], (first, second), strict=True):
            words = {
                -3: "Response 1 is much better",
                -2: "Response 1 is better",
                0: "both are about the same",
            }
            words |= {-1: "Response 1 is slightly better", 1: "Response 2 is slightly better"}
            words |= {2: "Response 2 is better", None: "skipped"}
            assert line.choice == words[answer]


def test_no_coefficient_is_shown_of_a_few_tasks(tmp_path):
    """One task with two votes says nothing; at MIN_TASKS there is a figure with its interval and its tasks."""
    for count in (1, MIN_TASKS - 1, MIN_TASKS):
        path = tmp_path / f"{count}.db"
        votes = [(-1) ** k for k in range(count)]
        other = [-votes[0], *votes[1:]]
        store_with_votes(path, "compare", make_groups(count), {"ada": votes, "bob": other})
        with serving(path) as (store, port):
            text = Visitor(port, store.invite("boss", admin=True)).get("/admin")
        agreement = text.split("<h2>Agreement</h2>")[1].split("</section>")[0]
        if count < MIN_TASKS:
            assert "Too early" in agreement
            assert f"{count} task{'s have' if count > 1 else ' has'} two or more votes" in agreement
            assert not any(f">{part}" in agreement for part in ("0.", "-0.", "1.", "-1."))
        else:
            assert f"from {count} tasks with two or more votes" in agreement
            assert "95 % interval" in agreement
            assert agreement.count("Krippendorff") == 1


tables = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=2, max_size=8)


@given(tables, st.booleans())
@settings(max_examples=50, deadline=None)
def test_the_bootstrap_s_coefficient_is_that_of_the_library(rows, is_ordinal):
    counts = np.array(rows)
    counts = counts[counts.sum(1) > 1]
    if not len(counts) or (counts.sum(0) > 0).sum() < 2:
        return
    expected = krippendorff.alpha(None, counts, [1, 2, 3], "ordinal" if is_ordinal else "nominal")
    labels = []
    for item, row in enumerate(counts):
        values = np.repeat([1, 2, 3], row)
        labels += [Label((item, 0, 0), str(k), int(value)) for k, value in enumerate(values)]
    estimate = estimate_alpha(labels, is_ordinal)
    assert estimate.alpha == pytest.approx(expected)
    pairs = counts[:, :, None] * counts[:, None, :] - np.eye(3) * counts[:, None, :]
    matrix = (pairs / (counts.sum(1) - 1)[:, None, None]).sum(0)
    assert alphas_of_coincidences(matrix[None], is_ordinal)[0] == pytest.approx(expected)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Two annotators with values that are equal in 0.8 of the tasks, of two values: α = 0.6 in the long run."""
    generator, covered = np.random.default_rng(0), 0
    for sample in range(200):
        first = generator.integers(0, 2, 60)
        second = np.where(generator.random(60) < 0.8, first, 1 - first)
        labels = [
            Label((task, 0, 0), name, int(value))
            for name, values in (("a", first), ("b", second))
            for task, value in enumerate(values)
        ]
        estimate = estimate_alpha(labels, seed=sample)
        assert estimate.num_tasks == 60
        covered += estimate.low <= 0.6 <= estimate.high
    assert 0.90 < covered / 200 < 0.99


def test_alpha_of_nothing_is_none():
    assert estimate_alpha([]).num_tasks == 0
    single = [Label((task, 0, 1), "a", 1) for task in range(3)]
    assert estimate_alpha(single).num_tasks == 0
    same = [Label((task, 0, 1), name, 1) for task in range(20) for name in "ab"]
    estimate = estimate_alpha(same)
    assert (math.isnan(estimate.alpha), estimate.num_tasks, estimate.is_reportable) == (
        True,
        20,
        False,
    )
