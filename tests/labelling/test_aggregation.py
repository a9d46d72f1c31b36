"""Aggregation of votes and agreement: derived by hand, and by outside libraries on real votes."""

import csv
import json
import math
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from lit_align.data.formats import built_in, recognise
from lit_align.data.formats.groups import as_row
from lit_align.errors import ConfigError, DataError
from lit_align.labelling import aggregation
from lit_align.labelling.aggregation import Label
from lit_align.labelling.agreement import measure_agreement, position_bias
from lit_align.labelling.campaign import gold_answer, task_members
from lit_align.labelling.store import Store
from lit_align.labelling.votes import CampaignVotes, Task, Vote, answer_values, read_votes
from lit_align.types import Group, Pair
from tests.labelling.serving import Visitor, serving


def make_votes(task, answers, shown=(0, 1)):
    """A vote of each annotator on a task."""
    return [Vote(name, task, 1, "vote", answer, shown) for name, answer in answers.items()]


def groups(given, how="share"):
    return [group for _, group in aggregation.labelled_groups(given, how)]


def prefers(better, strength=1):
    """Of two that are shown in their own order."""
    return {"preference": {0: -strength, 1: strength, None: 0}[better]}


def campaign_votes(kind, answers, size=2, members=None):
    members = members or tuple(range(size))
    group = Group("?", [f"r{k}" for k in range(size)])
    return CampaignVotes(
        {1: group}, {1: Task(kind, 1, members, None)}, make_votes(1, answers, members)
    )


def test_a_comparison_by_each_way():
    """Two for the first (strengths 3 and 1), one against (2), one tie: 2.5 of 4; the mean strength is 2 / 4."""
    given = campaign_votes(
        "compare",
        {"a": prefers(0, 3), "b": prefers(0, 1), "c": prefers(1, 2), "d": prefers(None, 0)},
    )
    assert groups(given, "share")[0].pairs == (Pair(0, 1, 0.625, 0.5),)
    assert groups(given, "majority")[0].pairs == (Pair(0, 1, 1.0, 0.5),)
    assert groups(given)[0].extra == {"votes": 4}


def test_the_order_in_which_responses_were_shown_is_undone():
    """The second shown is much better, which is the first of the group; the third is best of three."""
    assert answer_values("compare", {"preference": 3}, (1, 0)) == {(0, 1): 1}
    assert answer_values("rank", {"places": [1, 2, 3]}, (2, 0, 1)) == {
        (0, 1): 1,
        (0, 2): -1,
        (1, 2): -1,
    }
    given = campaign_votes("compare", {})._replace(
        history=[Vote("a", 1, 1, "vote", {"preference": 3}, (1, 0))]
    )
    assert groups(given)[0].pairs == (Pair(0, 1, 1.0, 3.0),)


def test_comparisons_without_a_majority_are_left_out():
    for answers in ([prefers(0), prefers(1)], [prefers(None, 0)] * 2):
        given = campaign_votes("compare", dict(zip("ab", answers, strict=True)))
        assert [groups(given, how) for how in ("majority", "share")] == [[], []]
    # a tie is the commonest answer: no majority, yet the share leans to the first
    given = campaign_votes(
        "compare", {"a": prefers(None, 0), "b": prefers(None, 0), "c": prefers(0)}
    )
    assert groups(given, "majority") == []
    assert groups(given, "share")[0].pairs[0].probability == pytest.approx(2 / 3)


def test_only_the_latest_of_an_annotator_counts_and_skips_and_withdrawals_do_not():
    given = campaign_votes("compare", {"a": prefers(0), "b": prefers(0), "c": prefers(0)})
    later = [
        Vote("a", 1, 2, "vote", prefers(1), (0, 1)),
        Vote("b", 1, 2, "undo", {}, (0, 1)),
        Vote("c", 1, 2, "skip", {}, (0, 1)),
        Vote("d", 1, 1, "skip", {}, (0, 1)),
    ]
    given = given._replace(history=given.history + later)
    assert [vote.annotator for vote in given.votes] == ["a"]
    assert groups(given)[0].pairs == (Pair(1, 0, 1.0, 1.0),)


def test_a_ranking_of_three():
    """1 > 2 > 3 and 2 > 1 = 3: 1 beats 2 in half, 1 beats 3 in 3/4, 2 beats 3; expected wins 1.25, 1.5, 0.25."""
    given = campaign_votes("rank", {"a": {"places": [1, 2, 3]}, "b": {"places": [2, 1, 2]}}, size=3)
    (found,) = groups(given, "share")
    assert found.ranking == (2, 1, 3)
    assert set(found.pairs) == {Pair(0, 2, 0.75), Pair(1, 2, 1.0)}


def test_comparisons_are_a_ranking_where_all_were_compared():
    """0 beats 1 and 2, which tie; without the last vote nobody knows how 1 and 2 compare."""
    tasks = {
        k: Task("compare", 1, pair, None) for k, pair in enumerate(((0, 1), (0, 2), (1, 2)), 1)
    }
    history = [
        Vote("a", k, 1, "vote", prefers((0, 0, None)[k - 1]), task.members)
        for k, task in tasks.items()
    ]
    given = CampaignVotes({1: Group("?", ["x", "y", "z"])}, tasks, history)
    assert groups(given)[0].ranking == (1, 2, 2)
    assert groups(given._replace(history=history[:2]))[0].ranking == ()


def test_ratings_and_binary_labels():
    flags = [{"invents": True, "harmful": False}, {"invents": False, "harmful": False}]
    given = campaign_votes(
        "rate",
        {"a": {"rating": 3, "flags": {"old": True}}, "b": {"rating": 5, "flags": {"new": False}}},
        1,
    )
    assert groups(given)[0].ratings == (
        {"rating": 4.0, "old": 1.0, "new": 0.0},
    )  # the list has changed
    given = campaign_votes(
        "rate",
        {"a": {"rating": 2, "flags": flags[0]}, "b": {"rating": 5, "flags": flags[1]}},
        2,
        (1,),
    )
    assert groups(given)[0].ratings == ({}, {"rating": 3.5, "invents": 0.5, "harmful": 0.0})
    assert groups(given, "majority") == []
    given = campaign_votes(
        "thumbs", {"a": {"up": True}, "b": {"up": False}, "c": {"up": False}}, 2, (1,)
    )
    assert groups(given, "majority")[0][1:4] == (["r1"], (), (False,))


def test_the_export_trains():
    """A line is read back as the same group by the layouts that training reads."""
    flags = {"invents": False}
    several = [
        campaign_votes("compare", {"a": prefers(0, 3)}),
        campaign_votes("rank", {"a": {"places": [3, 1, 2]}}, 3),
        campaign_votes("rate", {"a": {"rating": 6, "flags": flags}}, 1),
        campaign_votes("thumbs", {"a": {"up": True}}, 1),
    ]
    for given in several:
        (group,) = groups(given)
        row = json.loads(json.dumps(as_row(group)))
        assert recognise(row, built_in())(row) == group


def test_annotators_are_measured_by_gold_tasks():
    group = Group("?", ["x", "y"])
    tasks = {
        1: Task("compare", 1, (0, 1), prefers(0)),
        2: Task("rate", 1, (0,), {"rating": 5, "flags": {}}),
        3: Task("compare", 1, (0, 1), None),
    }
    history = [
        *make_votes(1, {"careful": prefers(0), "careless": prefers(1), "torn": prefers(None, 0)}),
        *make_votes(
            2, {"careful": {"rating": 6, "flags": {}}, "careless": {"rating": 3, "flags": {}}}, (0,)
        ),
        *make_votes(3, {"careful": prefers(0), "careless": prefers(1)}),
    ]
    given = CampaignVotes({1: group}, tasks, history)
    assert aggregation.gold_accuracy(given) == {
        "careful": (2, 2),
        "careless": (0, 2),
        "torn": (0, 1),
    }
    assert groups(given) == []  # one against one, and gold is never exported
    assert groups(aggregation.drop_unreliable(given, 0.5))[0].pairs == (Pair(0, 1, 1.0, 1.0),)


def test_dawid_skene_corrects_an_annotator_who_is_always_wrong():
    truth = [1, -1, 1, 1, -1, -1, 1, -1]
    given = [Label((k, 0, 1), who, value) for k, value in enumerate(truth) for who in "abc"]
    given += [Label((k, 0, 1), "liar", -value) for k, value in enumerate(truth)]
    given += [
        Label((8, 0, 1), "liar", -1),
        Label((8, 0, 1), "a", 1),
    ]  # an even split, unless one knows them
    found = aggregation.dawid_skene(given)
    assert aggregation.vote_shares(given)[8, 0, 1] == {-1: 0.5, 1: 0.5}
    assert found[8, 0, 1][1] > 0.999


def maximised(given, rounds):
    """Dawid and Skene's equations 2.3 to 2.5 in loops; no probability falls under 1e-10."""
    items, people, values = (sorted({label[k] for label in given}) for k in range(3))
    belief = {i: dict.fromkeys(values, 0.0) for i in items}
    for item, _, value, _ in given:
        belief[item][value] += 1.0
    for _ in range(rounds + 1):
        belief = {
            i: {v: p / sum(row.values()) for v, p in row.items()} for i, row in belief.items()
        }
        prior = {v: np.mean([belief[i][v] for i in items]) for v in values}
        errs = {who: {true: dict.fromkeys(values, 0.0) for true in values} for who in people}
        for item, who, value, _ in given:
            for true in values:
                errs[who][true][value] += belief[item][true]
        for row in [row for of in errs.values() for row in of.values()]:
            row |= {value: max(p, 1e-10) for value, p in row.items() if p}
            row |= {value: p / sum(row.values()) for value, p in row.items()}
        logs = {i: {v: math.log(max(prior[v], 1e-10)) for v in values} for i in items}
        for item, who, value, _ in given:
            for true in values:
                logs[item][true] += math.log(max(errs[who][true][value], 1e-10))
        found, belief = (
            belief,
            {
                i: {v: math.exp(p - max(row.values())) for v, p in row.items()}
                for i, row in logs.items()
            },
        )
    return found


@pytest.mark.parametrize("seed", range(3))
def test_dawid_skene_goes_on_until_it_has_converged(seed):
    given = random_labels(seed, items=40, people=6)
    found, expected = aggregation.dawid_skene(given), maximised(given, 100)
    assert max(abs(found[i][v] - p) for i, row in expected.items() for v, p in row.items()) < 1e-3
    early = maximised(given, 5)
    assert max(abs(early[i][v] - p) for i, row in expected.items() for v, p in row.items()) > 1e-2


def test_position_bias_counts_who_was_shown_first():
    history = [
        Vote(f"a{k}", 1, 1, "vote", {"preference": one}, (1, 0))
        for k, one in enumerate((-3, 1, -2, 0))
    ]
    given = campaign_votes("compare", {})._replace(history=history)
    assert position_bias(given)[:2] == (2, 3)
    many = given._replace(history=[vote._replace(task=k) for k in range(25) for vote in history])
    assert position_bias(many) == (50, 75, 29, 46)  # 37.5 ± 1.96 * 75 ** 0.5 / 2, to whole numbers


def test_gold_answers_come_from_the_labels_of_a_row():
    pair = Group("?", ["x", "y"], (Pair(1, 0),))
    assert gold_answer(pair, "compare", (0, 1)) == prefers(1)
    assert gold_answer(pair._replace(pairs=(Pair(1, 0, 0.5),)), "compare", (0, 1)) is None
    assert gold_answer(pair, "rank", (0, 1)) == {"places": [2, 1]}
    ranked = Group("?", ["x", "y", "z"], ranking=(2, 1, 2))
    assert [gold_answer(ranked, "compare", m) for m in task_members(ranked, "compare")] == [
        prefers(1),
        None,
        prefers(0),
    ]
    assert gold_answer(ranked, "rank", (0, 1, 2)) == {"places": [2, 1, 2]}
    assert gold_answer(Group("?", ["x"], desirable=(False,)), "thumbs", (0,)) == {"up": False}
    assert gold_answer(Group("?", ["x"], ratings=({"rating": 5.6},)), "rate", (0,)) == {
        "rating": 6,
        "flags": {},
    }
    assert gold_answer(Group("?", ["x"]), "rate", (0,)) is None


def test_what_is_no_store_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(ConfigError, match="name another file"):
        Store(tmp_path / "letter.txt")
    for missing in ("letter.txt", "nothing.db"):
        with pytest.raises(DataError, match="name the file of lit-align label"):
            read_votes(tmp_path / missing)


def frame(given):
    table = pd.DataFrame([(label.item, label.annotator, label.value) for label in given])
    return table.set_axis(["task", "worker", "label"], axis=1)


def random_labels(seed, items=60, people=9, values=(1, 0, -1), least=2):
    """Votes of annotators who are right in two of three cases, a random few on each item."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(items):
        truth = rng.choice(values)
        for who in rng.choice(people, rng.integers(least, people + 1), replace=False):
            made.append(
                Label(
                    (k, 0, 1), f"w{who}", int(truth if rng.random() < 2 / 3 else rng.choice(values))
                )
            )
    return made


def check_against_libraries(given, ordinal=False):
    """Labels against crowd-kit, figures against scikit-learn, statsmodels and NLTK, to 1e-9."""
    from crowdkit.aggregation import MajorityVote
    from nltk.metrics.agreement import AnnotationTask
    from sklearn.metrics import cohen_kappa_score
    from statsmodels.stats.inter_rater import fleiss_kappa

    table = frame(given)
    ours, theirs = aggregation.vote_shares(given), MajorityVote().fit_predict_proba(table)
    assert ours.keys() == set(theirs.index)
    assert (
        max(
            abs(ours[item].get(value, 0) - p)
            for item, row in theirs.iterrows()
            for value, p in row.items()
        )
        < 1e-9
    )
    theirs = MajorityVote().fit_predict(table)
    clear = {
        item: max(belief) for item, belief in aggregation.majority_vote(given).items() if belief
    }
    assert clear
    assert all(theirs[item] == value for item, value in clear.items())

    ours = measure_agreement(given, ordinal)
    by_item, shared = defaultdict(dict), defaultdict(list)
    for label in given:
        by_item[label.item][label.annotator] = label.value
    for answers in by_item.values():
        for one in sorted(answers):
            for other in sorted(answers):
                if one < other:
                    shared[one, other].append((answers[one], answers[other]))
    assert ours.raw == pytest.approx(np.mean([a == b for both in shared.values() for a, b in both]))
    kappas = []
    for both in shared.values():
        first, second = zip(*both, strict=True)
        if len({*first, *second}) > 1:
            kappas.append((cohen_kappa_score(first, second), len(both)))
    kappa, weight = map(np.array, zip(*kappas, strict=True))
    assert ours.cohen == pytest.approx((kappa * weight).sum() / weight.sum(), abs=1e-9)
    values = sorted({label.value for label in given})
    sizes = Counter(len(answers) for answers in by_item.values() if len(answers) > 1)
    n = min(size for size, count in sizes.items() if count == max(sizes.values()))
    counted = [[list(a.values()).count(v) for v in values] for a in by_item.values() if len(a) == n]
    assert ours.fleiss == pytest.approx(fleiss_kappa(counted), abs=1e-9)
    if not ordinal:
        several = [label for label in given if len(by_item[label.item]) > 1]
        nltk = AnnotationTask([(label.annotator, label.item, label.value) for label in several])
        assert ours.alpha == pytest.approx(nltk.alpha(), abs=1e-9)
    return ours


@pytest.mark.parametrize("seed", range(2))
def test_aggregates_and_agreement_are_those_of_outside_libraries(seed):
    check_against_libraries(random_labels(seed))
    check_against_libraries(random_labels(seed, values=(0, 1), least=9))
    check_against_libraries(random_labels(seed, values=tuple(range(1, 8))), ordinal=True)


def test_krippendorffs_own_example():
    """Computing Krippendorff's Alpha-Reliability (2011), section C: four observers, nominal 0.743, ordinal 0.815."""
    rows = {
        "A": "1 2 3 3 2 1 4 1 2 . . .",
        "B": "1 2 3 3 2 2 4 1 2 5 . 3",
        "C": ". 3 3 3 2 3 4 2 2 5 1 .",
        "D": "1 2 3 3 2 4 4 1 2 5 1 .",
    }
    given = [
        Label((k, 0, 1), who, int(value))
        for who, row in rows.items()
        for k, value in enumerate(row.split())
        if value != "."
    ]
    assert measure_agreement(given).alpha == pytest.approx(0.743, abs=5e-4)
    assert measure_agreement(given, ordinal=True).alpha == pytest.approx(0.815, abs=5e-4)


@pytest.mark.filterwarnings("error")
def test_agreement_of_too_few_labels_is_undefined():
    """Two agree on one item, and one alone says something else of another: nothing differs that could agree."""
    for given in (
        [],
        [Label((1, 0, 1), "a", 1)],
        [Label((1, 0, 1), w, 1) for w in "ab"] + [Label((2, 0, 1), "c", -1)],
    ):
        found = measure_agreement(given)
        assert math.isnan(found.alpha)
        assert math.isnan(found.cohen)
    assert found.raw == 1.0


def test_real_votes_replayed_over_http(tmp_path, shared_data):
    """A hundred and fifty of the pairs; the proof in tests/proofs/labelling.py replays them all."""
    check_replay(shared_data, tmp_path / "labels.db", pairs=150)


def check_replay(shared_data, path, pairs):
    """What comes out of the store is what outside libraries make of the file itself; the number of votes."""
    from crowdkit.aggregation import DawidSkene, MajorityVote
    from nltk.metrics.agreement import AnnotationTask

    with (shared_data / "llmfao/crowd-comparisons.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (shared_data / "llmfao/pairs-crowd.jsonl").open() as file:
        texts = [json.loads(line) for line in file][:pairs]
    number = {row["id"]: k for k, row in enumerate(texts, 1)}
    rows = [{**row, "id": number[int(row["id"])]} for row in rows if int(row["id"]) in number]
    asked = [
        Group(row["text"], [row["result_x"], row["result_y"]], extra={"id": k})
        for k, row in enumerate(texts, 1)
    ]
    with serving(path, asked) as (store, port):
        replay(store, port, rows)
    given = read_votes(path)
    assert len(given.votes) == len(given.history) == len(rows)

    value = {"left": 1, "right": -1, "tie": 0}
    table = pd.DataFrame(
        [(r["id"], r["worker"], value[r["winner"]]) for r in rows],
        columns=["task", "worker", "label"],
    )
    ours = aggregation.collect_labels(given)["compare"]
    assert sorted((one.item[0], one.annotator, one.value) for one in ours) == sorted(
        table.itertuples(index=False)
    )
    skene = DawidSkene(n_iter=100, tol=-math.inf).fit_predict_proba(table)
    share = MajorityVote().fit_predict_proba(table)
    for how, theirs in (("share", share), ("dawid_skene", skene)):
        expected = {task: row.get(1, 0) + row.get(0, 0) / 2 for task, row in theirs.iterrows()}
        found = {group.extra["id"]: group.pairs[0] for group in groups(given, how)}
        first = {
            k: pair.probability if pair.better == 0 else 1 - pair.probability
            for k, pair in found.items()
        }
        assert max(abs(first.get(k, 0.5) - p) for k, p in expected.items()) < 1e-9
    several = table[table.groupby("task").task.transform("size") > 1]
    nltk = AnnotationTask(
        list(several[["worker", "task", "label"]].itertuples(index=False, name=None))
    )
    assert measure_agreement(ours).alpha == pytest.approx(nltk.alpha(), abs=1e-9)
    return len(rows)


def replay(store, port, rows):
    """Each worker answers what that worker once did, in the order in which the page shows it, all at once."""
    winner = {
        (row["worker"], row["id"]): {"left": 0, "right": 1, "tie": None}[row["winner"]]
        for row in rows
    }
    tokens = {worker: store.invite(worker) for worker in sorted({row["worker"] for row in rows})}
    ids = dict(store.db.execute("SELECT name, id FROM people"))
    with store.transaction() as db:  # who is shown what was drawn back then
        shown = [(task, ids[worker], task, time.time()) for worker, task in winner]
        db.executemany("INSERT INTO shown VALUES (?, ?, ?, 'open', ?)", shown)

    def work(worker):
        visitor = Visitor(port, tokens[worker])
        for _ in range(sum(row["worker"] == worker for row in rows)):
            form = visitor.task()
            order = store.assigned_task(ids[worker], int(form["task"])).order
            side = winner[worker, int(form["task"])]
            preference = 0 if side is None else (-1, 1)[order.index(side)]
            assert visitor.send(**form, preference=preference) == 303

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, tokens))
