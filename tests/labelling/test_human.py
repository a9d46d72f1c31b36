"""Votes of people as labels: every kind, by content, with a record of what was left out; and training on them."""

import json

import pytest

from lit_align.cli.main import main
from lit_align.errors import ConfigError, DataError
from lit_align.feedback.base import TIE
from lit_align.labelling.feedback import Human
from lit_align.labelling.store import Store
from lit_align.testing import check_feedback
from lit_align.types import Group, Pair
from tests.labelling.serving import make_groups
from tests.stages.runs import arguments, folder_of, write_pairs

TWO, THREE = make_groups(1, 2)[0], make_groups(1, 3)[0]


def store_with_votes(path, kind, groups, answers_of, gold=()):
    """A store in which everybody answers every task; answers are about the responses in the order of the group."""
    store = Store(path, votes=len(answers_of), gold_every=1000)
    store.add_tasks(groups, kind)
    store.add_tasks(gold, kind, gold=True)
    for name, answers in answers_of.items():
        who = store.session_person(store.open_session(store.invite(name))[0])
        with store.transaction() as db:
            db.execute("INSERT INTO shown SELECT id, ?, id, 'open', 0 FROM tasks", (who,))
        for (task, members), answer in zip(
            store.db.execute("SELECT id, members FROM tasks ORDER BY id").fetchall(),
            answers,
            strict=True,
        ):
            order = store.reopen_task(who, task).order
            verdict = "vote" if answer is not None else "skip"
            store.record_vote(
                who, task, 1, verdict, as_shown(kind, answer, json.loads(members), order)
            )
    return str(path)


def as_shown(kind, answer, members, order):
    if answer is None:
        return {}
    if kind == "compare":
        return {"preference": answer if tuple(members) == order else -answer}
    if kind == "rank":
        return {"places": [answer[members.index(i)] for i in order]}
    return (
        {"up": answer}
        if kind == "thumbs"
        else {"rating": answer[0], "flags": {"invents": answer[1]}}
    )


def labelled(source, label_kind, group):
    [result] = source([group], label_kind)
    return result.group


def test_comparisons(tmp_path):
    """Two for the first (3 and 1), one against (2), one tie: 2.5 of 4, by (3 + 1 - 2 + 0) / 4."""
    store = store_with_votes(
        tmp_path / "l.db", "compare", [TWO], {"a": [-3], "b": [-1], "c": [2], "d": [0], "e": [None]}
    )
    [result] = Human(store)([TWO._replace(source="here:1", extra={"tokens": [[1], [2]]})], "pairs")
    assert result.group == TWO._replace(
        pairs=(Pair(0, 1, 0.625, 0.5),), source="here:1", extra={"tokens": [[1], [2]]}
    )
    counts = {"annotators": 4, "votes": 4, "ties": 1, "abstentions": 1, "dropped": 0}
    assert counts.items() <= result.records[0].items()
    assert labelled(Human(store, "majority"), "pairs", TWO).pairs == (Pair(0, 1, 1.0, 0.5),)
    assert labelled(Human(store), "ranking", TWO).ranking == (1, 2)
    assert labelled(Human(store), "desirable", TWO).desirable == (True, False)
    assert labelled(Human(store), "demonstrations", TWO).responses == TWO.responses[:1]
    assert Human(store)([TWO], "ratings")[0].reason == "no rating"


def test_a_group_is_found_by_its_content(tmp_path):
    """In another order, or asked about twice: one for the first, and two for it when it stood second."""
    turned = TWO._replace(responses=TWO.responses[::-1])
    store = store_with_votes(
        tmp_path / "l.db", "compare", [TWO, turned], {"a": [-1, 3], "b": [1, 2]}
    )
    for group in (TWO, turned):
        found = labelled(Human(store), "pairs", group)
        [(better, _, sure, margin)] = found.pairs
        assert (found.responses[better], sure, margin) == (
            TWO.responses[0],
            0.75,
            (1 - 1 + 3 + 2) / 4,
        )
    others = [TWO._replace(prompt="Another?"), TWO._replace(responses=TWO.responses[:1]), THREE]
    assert {one.reason for one in Human(store)(others, "pairs")} == {
        "no task of the store asked about it"
    }


def test_ties_and_missing_votes_have_different_reasons(tmp_path):
    groups = make_groups(2)
    store = store_with_votes(
        tmp_path / "l.db", "compare", groups, {"a": [-1, None], "b": [1, None]}
    )
    for label_kind in ("pairs", "desirable", "ranking", "demonstrations"):
        assert [one.reason for one in Human(store)(groups, label_kind)] == [
            TIE,
            "no vote on it counts",
        ]


def test_three_that_are_compared_with_each_other(tmp_path):
    """0 beats 1 and ties with 2, which ties with 1: expected wins 1.5, 0.5 and 1; only one pair is decided."""
    store = store_with_votes(tmp_path / "l.db", "compare", [THREE], {"a": [-2, 0, 0]})
    assert labelled(Human(store), "ranking", THREE).ranking == (1, 3, 2)
    assert labelled(Human(store), "demonstrations", THREE).responses == THREE.responses[:1]
    assert labelled(Human(store), "pairs", THREE).responses == THREE.responses[:2]


def test_rankings(tmp_path):
    """1 > 2 > 3 and 2 > 1 = 3: expected wins 1.25, 1.5, 0.25."""
    store = store_with_votes(
        tmp_path / "l.db", "rank", [THREE], {"a": [[1, 2, 3]], "b": [[2, 1, 2]]}
    )
    assert labelled(Human(store), "ranking", THREE).ranking == (2, 1, 3)
    assert set(labelled(Human(store), "pairs", THREE).pairs) == {Pair(0, 2, 0.75), Pair(1, 2)}
    assert labelled(Human(store), "demonstrations", THREE).responses == THREE.responses[1:2]
    assert Human(store)([THREE], "pairs")[0].records[0]["ties"] == 1


def test_ratings(tmp_path):
    said = {"a": [(7, False), (4, True), (2, True)], "b": [(5, False), (4, False), (1, True)]}
    store = store_with_votes(tmp_path / "l.db", "rate", [THREE], said)
    rated = [{"invents": p, "rating": mean} for p, mean in ((0.0, 6.0), (0.5, 4.0), (1.0, 1.5))]
    assert list(labelled(Human(store), "ratings", THREE).ratings) == rated
    found = labelled(Human(store), "desirable", THREE)
    assert (found.responses, found.desirable) == (["Answer 0.0", "Answer 0.2"], (True, False))
    assert set(labelled(Human(store), "pairs", THREE).pairs) == {
        Pair(0, 1, margin=2.0), Pair(0, 2, margin=4.5), Pair(1, 2, margin=2.5)
    }  # fmt: skip
    assert labelled(Human(store), "ranking", THREE).ranking == (1, 2, 3)
    assert labelled(Human(store), "demonstrations", THREE).responses == ["Answer 0.0"]
    bad = store_with_votes(tmp_path / "bad.db", "rate", [TWO], {"a": [(3, True), (2, True)]})
    assert Human(bad)([TWO], "demonstrations")[0].reason == "no response is worth imitating"


def test_thumbs(tmp_path):
    """One is liked, of one they are of two minds, one is disliked."""
    store = store_with_votes(
        tmp_path / "l.db", "thumbs", [THREE], {"a": [True, True, False], "b": [True, False, False]}
    )
    found = labelled(Human(store), "desirable", THREE)
    assert (found.responses, found.desirable) == (["Answer 0.0", "Answer 0.2"], (True, False))
    assert labelled(Human(store), "pairs", THREE).pairs == (Pair(0, 1, margin=1.0),)
    assert labelled(Human(store), "demonstrations", THREE).responses == ["Answer 0.0"]


def test_annotators_who_fail_gold_tasks_are_dropped(tmp_path):
    gold = [Group(f"Known {k}?", ["right", "wrong"], (Pair(0, 1),)) for k in range(2)]
    said = {"good": [-2, -1, -1], "bad": [2, 1, -1], "worse": [3, 1, 1]}
    store = store_with_votes(tmp_path / "l.db", "compare", [TWO], said, gold)
    assert labelled(Human(store), "pairs", TWO).pairs[0] == (1, 0, pytest.approx(2 / 3), 1.0)
    for least, dropped in ((0.0, 0), (0.5, 1), (1.0, 2)):
        [result] = Human(store, min_gold_accuracy=least)([TWO], "pairs")
        assert result.records[0]["dropped"] == dropped
    assert result.group.pairs == (Pair(0, 1, 1.0, 2.0),)
    assert Human(store)(gold, "pairs")[0].reason == "no task of the store asked about it"


def test_later_votes_are_read(tmp_path):
    store, source = Store(tmp_path / "l.db"), Human(str(tmp_path / "l.db"))
    store.add_tasks([TWO], "compare")
    assert source([TWO], "pairs")[0].group is None
    who = store.session_person(store.open_session(store.invite("ada"))[0])
    task = store.next_task(who)
    store.record_vote(who, task.number, 1, "vote", {"preference": -1})
    assert source([TWO], "pairs")[0].group.pairs == (Pair(*task.order, 1.0, 1.0),)


def test_it_is_a_valid_source_of_feedback(tmp_path):
    from lit_align.testing.feedback import GROUPS

    for kind, answer in {"compare": -1, "rank": None, "rate": (6, False), "thumbs": True}.items():
        count = Store(tmp_path / f"{kind}.count").add_tasks(GROUPS, kind)
        check_feedback(
            Human(
                store_with_votes(tmp_path / f"{kind}.db", kind, GROUPS, {"a": [answer] * count}),
                "dawid_skene",
            )
        )


def test_mistakes_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"min_gold_accuracy must be between 0 and 1, got 1\.5; it is a share"
    ):
        Human("l.db", min_gold_accuracy=1.5)
    with pytest.raises(DataError, match="name the file of lit-align label"):
        Human(str(tmp_path / "none.db"))([TWO], "pairs")


@pytest.mark.parametrize(
    ("kind", "stage", "objective"),
    [
        ("compare", "RewardModel", "BradleyTerry"),
        ("compare", "Preference", "DPO"),
        ("thumbs", "Preference", "KTO"),
        ("thumbs", "Preference", "BCO"),
        ("rank", "Preference", "PlackettLuceDPO"),
        ("rank", "RewardModel", "PlackettLuce"),
    ],
)
def test_votes_train(tiny, tmp_path, kind, stage, objective):
    train = write_pairs(tmp_path / "pairs.jsonl", 8)
    said = {"compare": [-2], "rank": [[1, 2]], "thumbs": [True, False]}[kind]
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    groups = [Group(row["prompt"], [row["chosen"], row["rejected"]]) for row in rows]
    store = store_with_votes(
        tmp_path / "l.db", kind, groups[:-1], {"ada": said * 7, "bob": said * 7}
    )
    main(human(tiny, train, tmp_path / "run", store, stage, objective))
    folder = folder_of(tmp_path / "run")
    assert (folder / "adapter").exists()
    rounds = [json.loads(line) for line in (folder / "rounds/0.jsonl").read_text().splitlines()]
    assert sorted(row.get("set_aside", "") for row in rounds) == [""] * 7 + [
        "no task of the store asked about it"
    ]
    assert {row["records"][0].get("votes") for row in rounds} == {2 * len(said), None}


def human(tiny, train, run, store, stage, objective):
    """The command line of a run that learns from votes."""
    data = [
        "--data=Online",
        f"--data.train={train}",
        "--data.feedback=Human",
        f"--data.feedback.store={store}",
    ]
    usual = [word for word in arguments(tiny, train, run) if not word.startswith("--data=")]
    given = [word for word in usual if word not in ("--model=Preference", "--model.objective=DPO")]
    given = ["fit", *data, "--data.responses=dataset", *given[1:], "--data.batch_size=4"]
    at = next(k for k, word in enumerate(given) if word.startswith("--model"))
    return [*given[:at], f"--model={stage}", f"--model.objective={objective}", *given[at:]]
