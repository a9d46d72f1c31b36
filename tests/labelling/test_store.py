"""Who is shown what, and that an answer is recorded once."""

import sqlite3
from collections import Counter

import pytest

from lit_align.errors import ConfigError, DataError
from lit_align.labelling import aggregation
from lit_align.labelling import store as module
from lit_align.labelling.agreement import campaign_metrics
from lit_align.labelling.campaign import Campaign
from lit_align.labelling.store import Stale, Store
from lit_align.labelling.votes import read_votes
from lit_align.types import Group, Pair
from tests.labelling.serving import make_groups


def people(store, count):
    """Annotators with a link each."""
    for k in range(count):
        store.invite(f"w{k}")
    return [number for (number,) in store.db.execute("SELECT id FROM people ORDER BY id")]


def answer(store, who, task, **said):
    store.record_vote(who, task.number, task.revision, "vote", said or {"preference": -2})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "labels.db", votes=2, gold_every=1000)


def test_what_is_acknowledged_is_on_the_disk(store):
    """Of an SQLite connection: WAL, and a sync before a vote's transaction returns."""
    seen = []
    store.db.set_trace_callback(seen.append)
    store.add_tasks(make_groups(1), "compare")
    assert store.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store.db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    (who,) = people(store, 1)
    task = store.next_task(who)
    assert store.db.execute("PRAGMA synchronous").fetchone() == (1,)
    answer(store, who, task)
    assert store.db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert seen.index("PRAGMA synchronous = FULL") < seen.index("BEGIN IMMEDIATE")


def test_each_task_goes_to_as_many_as_are_to_vote(store):
    store.add_tasks(make_groups(5), "compare")
    shown = {}
    for who in people(store, 4):
        while task := store.next_task(who):
            answer(store, who, task)
            shown.setdefault(task.id, []).append(who)
    assert sorted(map(len, shown.values())) == [2] * 5
    assert all(len(set(who)) == 2 for who in shown.values())


def test_what_somebody_looks_at_is_offered_to_nobody_else_for_a_while(store, monkeypatch):
    store.votes = 1
    store.add_tasks(make_groups(1), "compare")
    first, second = people(store, 2)
    task = store.next_task(first)
    assert store.next_task(first).id == task.id  # a reload
    assert store.next_task(second) is None
    assert store.progress(second)[:2] == (0, 1)
    now = module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + module.LEASE + 1)
    other = store.next_task(second)
    assert other.id == task.id
    answer(store, second, other)
    answer(store, first, task)  # late, and counted all the same
    assert len(read_votes(store.path).votes) == 2


def test_a_skip_goes_to_somebody_else_and_an_undo_comes_back(store):
    store.votes = 1
    store.add_tasks(make_groups(1), "compare")
    first, second, third = people(store, 3)
    task = store.next_task(first)
    store.record_vote(first, task.number, 1, "skip", {})
    assert store.next_task(first) is None
    task = store.next_task(second)
    answer(store, second, task)
    assert store.next_task(third) is None
    store.record_vote(second, task.number, 2, "undo", {})
    again = store.next_task(second)
    assert (again.id, again.revision, again.answer) == (task.id, 3, {})
    answer(store, second, again)
    assert [vote.verdict for vote in read_votes(store.path).history] == [
        "skip",
        "vote",
        "undo",
        "vote",
    ]
    found = campaign_metrics(read_votes(store.path), 1)
    assert (found["complete"], found["votes"]) == (1, 1)
    assert [(one["vote"], one["skip"], one["changed"]) for one in found["annotators"]] == [
        (0, 1, 0),
        (1, 0, 2),
    ]


def test_an_answer_is_recorded_once_and_never_written_over(store):
    store.add_tasks(make_groups(1), "compare")
    who, other = people(store, 2)
    task = store.next_task(who)
    for _ in range(3):
        answer(store, who, task, preference=1)
    assert len(read_votes(store.path).history) == 1
    with pytest.raises(Stale):  # another answer under the same revision: an old window
        answer(store, who, task, preference=-1)
    with pytest.raises(Stale):  # one is missing before it
        store.record_vote(who, task.number, 3, "vote", {"preference": -2})
    with pytest.raises(Stale):  # never shown
        store.record_vote(other, task.number, 1, "vote", {"preference": -2})
    with pytest.raises(Stale):  # nothing to take back
        store.record_vote(who, task.number, 3, "undo", {})
    store.record_vote(who, task.number, 2, "vote", {"preference": -2})
    found = read_votes(store.path)
    assert [vote.answer["preference"] for vote in found.history] == [1, -2]
    assert [vote.answer["preference"] for vote in found.votes] == [-2]
    for query in ("UPDATE votes SET answer = '{}'", "DELETE FROM votes"):
        with pytest.raises(sqlite3.IntegrityError, match="a vote is never"):
            store.db.execute(query)


def test_the_order_is_drawn_once_and_says_nothing(store):
    """Everybody sees a task in an order of their own, always the same one; a response comes first in half of them."""
    store.votes = 40
    store.add_tasks(make_groups(25), "compare")
    first = []
    for who in people(store, 40):
        while task := store.next_task(who):
            assert store.reopen_task(who, task.number).order == task.order
            assert task.responses == [f"Answer {task.id - 1}.{i}" for i in task.order]
            first.append(task.order[0])
            answer(store, who, task)
    assert [vote.shown[0] for vote in read_votes(store.path).history] == first
    assert abs(sum(first) / 1000 - 0.5) < 4 * 0.5 / 1000**0.5


def test_gold_is_mixed_in_and_most_doubtful_comes_first(tmp_path):
    store = Store(tmp_path / "labels.db", votes=1, gold_every=4)
    doubts = [0.2, 0.9, 0.5, 0.7, 0.1, 0.3]
    store.add_tasks(
        [g._replace(extra={"unsure": d}) for g, d in zip(make_groups(6), doubts, strict=True)],
        "compare",
        uncertainty="unsure",
    )
    gold = [Group(f"Known {k}?", ["right", "wrong"], (Pair(0, 1),)) for k in range(3)]
    assert store.add_tasks([*gold, Group("Unknown?", ["x", "y"])], "compare", gold=True) == 3
    (who,) = people(store, 1)
    asked = []
    while task := store.next_task(who):
        asked.append(task.prompt)
        answer(store, who, task, preference=(-1, 1)[task.order.index(0)])
    plain = [prompt for prompt in asked if prompt.startswith("Question")]
    assert plain == [f"Question {k}?" for k in (1, 3, 2, 5, 0, 4)]
    known = [k // 4 for k, prompt in enumerate(asked) if prompt.startswith("Known")]
    assert known == [0, 1, 2][: len(known)]  # one in every four, nobody knows where
    assert len(known) >= 2
    assert aggregation.gold_accuracy(read_votes(store.path)) == {"w0": (len(known), len(known))}
    assert len(list(aggregation.labelled_groups(read_votes(store.path)))) == 6


def test_tasks_that_are_added_again_keep_their_votes(store):
    twice = [*make_groups(2), *make_groups(1)]
    assert store.add_tasks(twice, "compare") == 3
    (who,) = people(store, 1)
    answer(store, who, store.next_task(who))
    assert store.add_tasks(twice, "compare") == 3
    found = read_votes(store.path)
    assert (len(found.tasks), len(found.votes)) == (3, 1)


def test_every_way_to_ask_makes_its_tasks(store):
    for kind, count in (("compare", 6), ("rank", 1), ("rate", 4), ("thumbs", 4)):
        assert store.add_tasks(make_groups(1, 4), kind) == count


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"votes": 0}, "votes must be at least 1, got 0"),
        ({"gold_every": 1}, "gold_every must be at least 2, got 1"),
        ({"runs": ["a", "b", "c"]}, "runs must be one, or two to compare, got 3"),
    ],
)
def test_a_campaign_that_cannot_be(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Campaign(**settings)


def test_doubt_needs_a_number(store):
    with pytest.raises(ConfigError, match="rows:0 has None in the column 'doubt'"):
        store.add_tasks(make_groups(1), "compare", uncertainty="doubt")
    assert store.db.execute("SELECT count(*) FROM groups").fetchone() == (0,)


def test_a_link_that_is_renewed_shuts_the_old_one_out(store):
    old = store.invite("ada")
    secret, admin = store.open_session(old)
    assert store.session_person(secret) == 1
    assert not admin
    assert store.invite_once("ada") is None
    new = store.invite("ada")
    assert store.open_session(old) is None
    assert store.session_person(secret) is None
    assert store.session_person(store.open_session(new)[0]) == 1


def test_no_secret_is_in_the_file(store):
    token = store.invite("ada")
    secret, _ = store.open_session(token)
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert len({store.invite(f"w{k}") for k in range(50)}) == 50
    assert len(token) >= 43  # 256 bits
    held = b"".join(path.read_bytes() for path in store.path.parent.glob("labels.db*"))
    assert not {token, secret} & {text for text in (token, secret) if text.encode() in held}
    assert sqlite3.connect(store.path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_gold_task_looks_like_any_other(tmp_path):
    """Its number goes on, the count of all tasks stays, and it stands where nobody can tell beforehand."""
    store = Store(tmp_path / "labels.db", votes=1000, gold_every=5)
    store.add_tasks(make_groups(40), "compare")
    store.add_tasks(
        [Group(f"Known {k}?", ["right", "wrong"], (Pair(0, 1),)) for k in range(20)],
        "compare",
        gold=True,
    )
    places = Counter()
    for who in people(store, 20):
        for number in range(1, 31):
            done, left, _ = store.progress(who)
            assert (done, done + left) == (number - 1, 50)
            task = store.next_task(who)
            assert task.number == number
            places[(number - 1) % 5] += task.prompt.startswith("Known")
            answer(store, who, task)
    assert sum(places.values()) == 20 * 6
    assert all(8 < places[k] < 44 for k in range(5))  # 24 of each, within four standard deviations


def test_all_is_done_when_nothing_is_left(tmp_path):
    store = Store(tmp_path / "labels.db", votes=1, gold_every=2)
    store.add_tasks(make_groups(3), "compare")
    store.add_tasks([Group("Known?", ["right", "wrong"], (Pair(0, 1),))], "compare", gold=True)
    (who,) = people(store, 1)
    while task := store.next_task(who):
        answer(store, who, task)
    assert store.progress(who)[:2] in ((4, 0), (3, 0))


def test_gold_that_was_wrong_is_corrected(store):
    for better in (0, 1):
        assert (
            store.add_tasks(
                [Group("?", ["x", "y"], (Pair(better, 1 - better),))], "compare", gold=True
            )
            == 1
        )
    (task,) = read_votes(store.path).tasks.values()
    assert task.gold == {"preference": 1}


def test_a_night_is_no_time_to_answer(store, monkeypatch):
    store.add_tasks(make_groups(2), "compare")
    (who,) = people(store, 1)
    task, now = store.next_task(who), module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 30_000)
    answer(store, who, task)
    task = store.next_task(who)
    monkeypatch.setattr(module.time, "time", lambda: now - 30_000)  # a clock that was set
    answer(store, who, task)
    assert [vote.seconds for vote in read_votes(store.path).votes] == [module.LEASE, 0.0]


def test_what_says_the_same_is_not_compared(store):
    twins = Group("?", ["x", "x", "y"])
    assert [store.add_tasks([twins], kind) for kind in ("compare", "rank", "rate")] == [2, 1, 3]
    assert store.add_tasks([Group("?", ["x", "x"])], "rank") == 0


def test_half_a_letter_is_told(store):
    with pytest.raises(DataError, match="here:3 has half of a surrogate pair"):
        store.add_tasks([Group("\ud83d", ["x", "y"], source="here:3")], "compare")


def test_a_task_has_one_answer_whatever_window_it_is_in(store):
    """Two windows show the same task; the second answer of another kind is refused, the same one is not."""
    store.add_tasks(make_groups(2), "compare")
    (who,) = people(store, 1)
    first, second = store.next_task(who), store.next_task(who)
    assert first == second
    answer(store, who, first, preference=1)
    answer(store, who, second, preference=1)
    with pytest.raises(Stale, match="in another window"):
        answer(store, who, second, preference=-1)
    store.record_vote(who, first.number, 2, "undo", {})
    answer(store, who, first, preference=1)  # sent again long after: it is the answer of then
    assert read_votes(store.path).votes == []
