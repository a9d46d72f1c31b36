"""Votes go to other tools and come back: each export is read by the project's own readers and imported again."""

import csv
import io
import json
import math

import pytest

from lit_align.data.formats import built_in
from lit_align.data.formats.argilla import Argilla
from lit_align.data.formats.label_studio import LabelStudio
from lit_align.data.read_groups import DataSource, load_groups
from lit_align.errors import ConfigError, DataError
from lit_align.labelling.aggregation import labelled_groups
from lit_align.labelling.agreement import campaign_metrics
from lit_align.labelling.store import Store
from lit_align.labelling.vote_exports import (
    argilla_records,
    label_studio_tasks,
    vote_rows,
    vote_table,
)
from lit_align.labelling.vote_imports import import_votes, read_vote_file
from lit_align.labelling.votes import content_key, read_votes
from lit_align.types import Group, Pair
from tests.labelling.serving import make_groups
from tests.labelling.test_human import store_with_votes

ANSWERS = {"a@x.org": [-3, 1, 0, None], "b@x.org": [-1, -2, 0, 2], "c@x.org": [2, None, 0, 1]}
"""Of three annotators to four comparisons; about the responses in the order of the row, None is a skip."""
GROUPS = [
    group._replace(extra={"level": number, "tags": ["x", number]})
    for number, group in enumerate(make_groups(4))
]


@pytest.fixture
def store(tmp_path):
    return Store(store_with_votes(tmp_path / "l.db", "compare", GROUPS, ANSWERS))


def write(path, rows):
    path.write_text(
        json.dumps(rows)
        if path.suffix == ".json"
        else "".join(json.dumps(row) + "\n" for row in rows)
    )
    return str(path)


def shares(path_or_data):
    """Label of each group by its prompt: better response, probability and margin."""
    labels = {}
    for _, group in labelled_groups(read_votes(path_or_data)):
        (pair,) = group.pairs
        probability = round(pair.probability, 9)
        labels[str(group.prompt)] = (group.responses[pair.better], probability, pair.margin)
    return labels


def imported(tmp_path, path, **settings):
    """A new store with the votes of a file, imported twice: the second time nothing is new."""
    target = Store(tmp_path / "new.db", **settings)
    votes = read_vote_file(path)
    first, second = import_votes(target, votes), import_votes(target, votes)
    assert (second.num_new, second.num_known, second.num_tasks) == (0, first.num_new, 0)
    return target, first


def test_the_own_export_comes_back_with_its_history(store, tmp_path):
    person = store.fetch_one("SELECT id FROM people WHERE name = 'a@x.org'")[0]
    store.record_vote(person, 1, 2, "undo", {})
    store.record_vote(person, 1, 3, "vote", {"preference": 1}, "changed my mind")
    rows = list(vote_rows(read_votes(store.path)))
    assert [row["row"]["level"] for row in rows[:4]] == [0, 1, 2, 3]  # the task's own columns
    target, counts = imported(tmp_path, write(tmp_path / "votes.jsonl", rows), votes=5)
    assert (counts.num_new, counts.num_tasks) == (14, 4)
    before, after = read_votes(store.path), read_votes(target.path)
    assert sorted(after.history) == sorted(before.history)
    assert [g._replace(source="") for g in after.groups.values()] == [
        g._replace(source="") for g in before.groups.values()
    ]
    assert shares(target.path) == shares(store.path)
    assert import_votes(store, read_vote_file(str(tmp_path / "votes.jsonl"))).num_new == 0
    token = target.invite_once("a@x.org")  # whose votes were imported has no link yet
    assert token
    assert target.next_task(target.session_person(target.open_session(token)[0])) is None
    assert target.progress(person)[0] == 4


def test_the_own_export_keeps_gold_equal_rows_and_what_decides_how_a_row_is_rendered(tmp_path):
    tools = ({"type": "function", "function": {"name": "add"}},)
    group = Group("?", ["x", "y", ""], tools=tools, template_kwargs={"think": True}, source="s:1")
    gold = [Group("Known?", ["right", "wrong"], (Pair(0, 1),))]
    answers = {"ada": [-1, 2, 3] * 2 + [1]}
    path = store_with_votes(tmp_path / "l.db", "compare", [group, group], answers, gold)
    rows = list(vote_rows(read_votes(path)))
    target, counts = imported(tmp_path, write(tmp_path / "votes.jsonl", rows))
    assert (counts.num_new, counts.num_tasks) == (7, 7)
    after = read_votes(target.path)
    assert list(after.tasks.values()) == list(read_votes(path).tasks.values())
    assert [vote[:4] for vote in after.history] == [vote[:4] for vote in read_votes(path).history]
    assert after.groups[1].tools == tools
    assert after.groups[1].template_kwargs == {"think": True}


@pytest.mark.parametrize("tool", ["argilla", "label_studio"])
def test_a_tool_s_export_is_read_by_its_reader_and_comes_back(store, tmp_path, tool):
    to_rows, reader = {
        "argilla": (argilla_records, Argilla()),
        "label_studio": (label_studio_tasks, LabelStudio()),
    }[tool]
    rows = to_rows(read_votes(store.path))
    path = write(tmp_path / "export.json", rows)
    kept = load_groups(DataSource([path], "pairs", formats=built_in(), max_malformed=0))
    # two of three for the first; one each; ties only; two for the second
    assert [group.pairs for group in kept] == [(Pair(0, 1, 2 / 3),), (Pair(1, 0),)]
    assert [group.prompt for group in kept] == ["Question 0?", "Question 3?"]
    columns = kept[1].extra["metadata"] if tool == "argilla" else kept[1].extra
    assert columns["level"] == 3
    assert all(reader.recognises(row) for row in rows if row is not rows[2])

    target, counts = imported(tmp_path, path)
    assert (counts.num_new, counts.num_tasks) == (10, 4)
    expected = {label: share[:2] for label, share in shares(store.path).items()}
    imported_shares = shares(target.path)
    assert {label: share[:2] for label, share in imported_shares.items()} == expected
    assert {margin for _, _, margin in imported_shares.values()} == {0.0}  # no strength is made up
    names = {vote.annotator for vote in read_votes(target.path).history}
    assert names == ANSWERS.keys()
    # into a store that asks about the same, in another order: no task is new
    other = Store(tmp_path / "other.db", votes=3)
    other.add_tasks([g._replace(responses=g.responses[::-1]) for g in GROUPS], "compare")
    assert import_votes(other, read_vote_file(path)).num_tasks == 0
    assert {label: share[:2] for label, share in shares(other.path).items()} == expected


def test_rankings_go_to_argilla_and_come_back(tmp_path):
    answers = {"ada": [[2, 1, 2]], "bob": [[3, 1, 2]]}
    path = store_with_votes(tmp_path / "l.db", "rank", make_groups(1, 3), answers)
    (record,) = argilla_records(read_votes(path))
    pairs = {(pair.better, pair.worse): pair.probability for pair in Argilla()(record).pairs}
    assert pairs == {(1, 0): 1.0, (2, 0): 1.0, (1, 2): 1.0}
    target, _ = imported(tmp_path, write(tmp_path / "export.json", [record]))
    assert [vote.answer["places"] for vote in read_votes(target.path).votes] == [
        answers["ada"][0],
        answers["bob"][0],
    ]


def test_a_flat_export_of_each_tool_is_imported(tmp_path):
    texts = {"prompt": "?", "response1": "x", "response2": "y"}
    flat = texts | {
        "better.responses": ["response2", "response1", "tie"],
        "better.responses.users": ["u1", "u2", "u3"],
        "better.responses.status": ["submitted", "draft", "submitted"],
    }
    unanswered = texts | {"prompt": "??", "better.responses": None}  # as Argilla writes it
    target, _ = imported(tmp_path, write(tmp_path / "flat.jsonl", [flat, unanswered]))
    answers = [(v.annotator, v.answer["preference"]) for v in read_votes(target.path).votes]
    assert answers == [("u1", 1), ("u3", 0)]  # a draft is no vote
    (tmp_path / "new.db").unlink()
    about = {"id": 7, "prompt": "?", "answer1": "x", "answer2": "y", "lead_time": 2.5}
    rows = [
        about | {"annotation_id": number, "annotator": number, "pw": [{"selected": side}]}
        for number, side in ((1, "left"), (2, "right"))
    ]
    target, _ = imported(tmp_path, write(tmp_path / "min.jsonl", rows))
    votes = read_votes(target.path).votes
    assert [(v.annotator, v.answer["preference"], v.seconds) for v in votes] == [
        ("1", -1, 2.5),
        ("2", 1, 2.5),
    ]
    assert len({vote.task for vote in votes}) == 1


def test_a_pending_record_of_the_nested_export_is_refused(tmp_path):
    """It does not say that its only answer was discarded."""
    record = {
        "fields": {"prompt": "?", "response1": "x", "response2": "y"},
        "responses": {"better": [{"value": "response1", "user_id": "u"}]},
        "status": "pending",
    }
    with pytest.raises(DataError, match="flatten=True"):
        read_vote_file(write(tmp_path / "pending.json", [record]))


OWN = {
    **{"annotator": "ada", "task": 1, "revision": 1, "verdict": "vote", "shown": [0, 1]},
    **{"answer": {"preference": 1}, "kind": "compare", "members": [0, 1], "gold": None},
    **{"note": "", "seconds": 1.0, "at": 1.0, "row": {"prompt": "?", "responses": ["x", "y"]}},
}
PAIR = {"prompt": "?", "response1": "x", "response2": "y"}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "is empty; give votes.jsonl"),
        ([{"prompt": "?", "chosen": "x", "rejected": "y"}], "has the columns prompt, chosen, rejected; give votes"),
        ([{k: v for k, v in OWN.items() if k != "row"}], "not its texts, as exports of earlier versions do"),
        ([OWN | {"answer": {"preference": 9}}], r"f.jsonl:1 has no vote .* is no answer to a task of the kind compare"),
        ([OWN | {"answer": {}}], "f.jsonl:1 has no vote that can be imported"),
        ([OWN | {"kind": "guess"}], "kind 'guess' or verdict 'vote' is unknown"),
        ([OWN | {"shown": [0, 2]}], "are not the same responses"),
        ([OWN | {"annotator": "\n"}], "which is no name"),
        ([OWN | {"revision": 2}], "f.jsonl:1 is revision 2 of ada's answer"),
        ([OWN, OWN | {"answer": {"preference": -1}}], "f.jsonl:2 is revision 1 of ada's answer"),
        ([PAIR | {"better.responses": ["response1"]}], "does not say who voted"),
        ([PAIR | {"better.responses": ["response7"], "better.responses.users": ["u"]}], "give votes.jsonl"),
        ([PAIR | {"better.responses": [["x"], "response1"], "better.responses.users": ["u", "v"]}], "names none of"),
        ([OWN | {"row": None}], "f.jsonl:1 has no vote that can be imported"),
        ([OWN | {"row": {"prompt": "?"}}], "f.jsonl:1 has no vote that can be imported"),
        ([PAIR | {"a.responses": ["response1"], "b.responses": ["response2"]}], "has a and b, which all ask"),
        ([PAIR | {"rating.responses": [4]}], "give votes.jsonl of the page, or a pairwise export"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_and_nothing_is_imported(tmp_path, rows, sentence):
    path = write(tmp_path / "f.jsonl", rows)
    store = Store(tmp_path / "l.db")
    with pytest.raises(DataError, match=sentence):
        import_votes(store, read_vote_file(path))
    assert read_votes(store.path) == ({}, {}, [])
    assert store.fetch_one("SELECT count(*) FROM people") == (0,)


RATE = {"kind": "rate", "members": [0], "shown": [0]}
RANK = {"kind": "rank", "answer": {"places": [1, 2]}}
STUDIO = {
    "id": 7,
    "prompt": "?",
    "answer1": "x",
    "answer2": "y",
    "annotation_id": 1,
    "annotator": 1,
}
HALF = "\ud83d"
NOT_NUMBERS = (True, "1", None, math.nan, math.inf, -1, 10**400, [1])


def wrong_votes():
    """Votes that the page could not have recorded, or could not show."""
    for answer in (
        {"preference": 1.0},
        {"preference": True},
        {"preference": 1, "graded": 0},
        [1],
        None,
    ):
        yield {"answer": answer}
    yield {"answer": {"preference": 1, "more": 2}}
    for places in ([1.0, 2], [1], [1, 3], [True, 2], "12", {"1": 1, "2": 2}):
        yield {**RANK, "answer": {"places": places}}
    for rating, flags in (
        (4.0, {}),
        (8, {}),
        (True, {}),
        (4, {"rude": "yes"}),
        (4, {HALF: True}),
        (4, []),
    ):
        yield {**RATE, "answer": {"rating": rating, "flags": flags}}
    for column in ("seconds", "at"):
        for value in NOT_NUMBERS:
            yield {column: value}
    yield {"at": 1e18}
    for value in (*NOT_NUMBERS, 0, 1.0, 2**70):
        yield {"revision": value}
    for verdict in ("undo", "removed"):
        yield {"verdict": verdict, "answer": {}}
    yield {"verdict": "skip", "answer": {"preference": "x"}}
    for gold in ("x", {}, [], {"preference": 1.0}, {"rating": 4, "flags": {}}):
        yield {"gold": gold}
    for indices in ([0.0, 1], [False, True], [0, 0], [0], [-1, 0], [0, 2]):
        yield {"shown": indices, "members": indices}
    for name in ("annotator", "note"):
        yield {name: HALF}
    yield {"annotator": 3}
    yield {"row": {"prompt": "?", "responses": "xy"}}
    yield {"row": "?"}


def test_a_vote_that_the_page_could_not_have_recorded_is_refused(tmp_path):
    store, accepted, refusals = Store(tmp_path / "l.db"), [], []
    for change in wrong_votes():
        path = write(tmp_path / "f.jsonl", [OWN | change])
        try:
            import_votes(store, read_vote_file(path))
            accepted.append(change)
        except DataError as error:
            refusals.append(str(error))
    assert accepted == []
    assert all(refusal.startswith(f"{tmp_path / 'f.jsonl'}:1 ") for refusal in refusals)
    assert read_votes(store.path) == ({}, {}, [])


@pytest.mark.parametrize("seconds", [math.nan, -math.inf, -1.0, 10**400])
def test_a_time_of_another_tool_is_a_number(tmp_path, seconds):
    row = STUDIO | {"pw": [{"selected": "left"}], "lead_time": seconds}
    with pytest.raises(DataError, match=r"f\.jsonl:1 has no vote that can be imported"):
        read_vote_file(write(tmp_path / "f.jsonl", [row]))


def test_imported_names_have_no_blanks_around_and_unknown_times_count_for_no_median(tmp_path):
    path = store_with_votes(tmp_path / "l.db", "compare", make_groups(2), {})
    store = Store(path)
    rows = []
    for number, seconds in enumerate((0, 0, 0, 8.0)):
        texts = {"prompt": f"{number}?", "responses": ["x", "y"]}
        rows.append(OWN | {"annotator": " ada ", "task": number, "seconds": seconds, "row": texts})
    import_votes(store, read_vote_file(write(tmp_path / "f.jsonl", rows)))
    assert {vote.annotator for vote in read_votes(path).votes} == {"ada"}
    metrics = campaign_metrics(read_votes(path), 3)
    assert (metrics["seconds"], metrics["annotators"][0]["seconds"]) == (8.0, 8.0)
    person = store.session_person(store.open_session(store.invite("ada"))[0])
    assert store.progress(person)[2] == 8.0


@pytest.mark.parametrize(
    "value", ["3", "[1]", '"ada"', "ada, bob", '{"u": 1}', "", 3, ["ada"], None]
)
def test_a_column_annotators_of_the_user_s_own_stays(tmp_path, value):
    record = {
        "fields": {"prompt": "?", "response1": "x", "response2": "y"},
        "metadata": {"annotators": value},
        "responses": {"better": [{"value": "response1", "user_id": "u", "status": "submitted"}]},
    }
    (entry,) = read_vote_file(write(tmp_path / "f.json", [record]))
    assert (entry.vote.annotator, entry.group.extra) == ("u", {"annotators": value})


def test_a_column_annotators_goes_to_argilla_and_back(tmp_path):
    group = Group("?", ["x", "y"], extra={"annotators": "3"})
    path = store_with_votes(tmp_path / "l.db", "compare", [group], {"ada": [-1]})
    (entry,) = read_vote_file(write(tmp_path / "f.json", argilla_records(read_votes(path))))
    assert (entry.vote.annotator, entry.group.extra) == ("ada", group.extra)


def test_other_kinds_are_refused_where_a_tool_has_no_place_for_them(tmp_path):
    path = store_with_votes(tmp_path / "l.db", "thumbs", make_groups(1, 1), {"ada": [True]})
    for to_rows, tool in ((argilla_records, "Argilla"), (label_studio_tasks, "Label Studio")):
        with pytest.raises(
            ConfigError, match=f"of the kind thumbs, and {tool} gets .*; export the"
        ):
            to_rows(read_votes(path))


def test_the_table_has_words_own_columns_and_no_formula(tmp_path):
    group = Group("=1+1", ["@x", "-y"], extra={"level": 2, "note": "own", "=2+2": "+3"})
    path = store_with_votes(tmp_path / "l.db", "compare", [group], {"=ada": [-3], "bob": [None]})
    table = list(csv.DictReader(io.StringIO(vote_table(read_votes(path), {}))))
    assert [row["choice"] for row in table] == ["Response 1 is much better", "skipped"]
    assert [row["strength"] for row in table] == ["3", ""]
    assert table[0] | {"seconds": "", "time": ""} == {
        **{"task": "1", "annotator": "'=ada", "kind": "compare", "note": "", "seconds": "", "time": ""},
        **{"choice": "Response 1 is much better", "strength": "3", "gold": "False"},
        **{"prompt": "'=1+1", "Response 1": "'@x", "Response 2": "'-y"},
        **{"level": "2", "row.note": "own", "'=2+2": "'+3"},
    }  # fmt: skip


def test_labels_keep_the_columns_of_a_task_and_how_it_is_rendered(tmp_path):
    group = Group("2 + 2 =", [" 4", " 5"], extra={"level": 2}, continues=True)
    path = store_with_votes(tmp_path / "l.db", "compare", [group], {"ada": [-3]})
    [(_, labelled)] = labelled_groups(read_votes(path))
    assert labelled.extra == {"level": 2, "votes": 1}
    assert labelled.continues
    assert content_key(labelled) == content_key(group)
