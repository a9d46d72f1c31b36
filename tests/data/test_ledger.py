"""Rows in are the sum of their fates, and too many malformed rows stop the run."""

import json

import pytest

from lit_align.data.ledger import Ledger, write_ledgers
from lit_align.errors import DataError
from lit_align.types import Group, Tree


@pytest.fixture
def ledger():
    made = Ledger("a.jsonl", rows=8)
    for i in range(1, 5):
        made.add(f"some/a.jsonl:{i}", "malformed", "empty response")
    made.add("some/a.jsonl:5", "set aside", "tie")
    made.add("some/a.jsonl:6", "kept")
    made.add("some/a.jsonl:7", "kept")
    made.add("some/a.jsonl:8", "truncated", "cut")
    made.measure(Tree([1, 2, 3], [[4, 5], [6]], [[True, False], [True]], Group("", [])), 7, 1, 2)
    made.measure(Tree([1], [[4, 5, 6]], [[True] * 3], Group("", [])))
    return made


def test_table_says_it_all(ledger):
    lines = ledger.table().splitlines()
    assert lines[0] == "a.jsonl: 8 rows"
    assert "kept                 2   25.00%" in lines
    assert "malformed            4   50.00%" in lines
    assert "         4  empty response  (a.jsonl:1, a.jsonl:2, a.jsonl:3, ...)" in lines
    assert "         1  tie  (a.jsonl:5)" in lines
    assert "tokens 10: scored 5 (50.0%), cut off 7" in lines
    assert "longest prompt 3, longest response 3" in lines
    assert "responses that lost their end 1, boundary merges 2" in lines


def test_json_says_the_same(ledger):
    book = json.loads(ledger.to_json())
    assert book["rows"] == sum(book["fates"].values()) == 8
    assert book["fates"] == {
        "kept": 2,
        "truncated": 1,
        "malformed": 4,
        "set aside": 1,
        "overlong": 0,
    }
    examples = [f"some/a.jsonl:{i}" for i in (1, 2, 3)]
    assert {
        "fate": "malformed",
        "reason": "empty response",
        "rows": 4,
        "examples": examples,
    } in book["reasons"]
    assert (book["tokens"], book["scored"], book["tokens_cut"], book["ends_lost"]) == (10, 5, 7, 1)


def test_too_many_malformed_rows_stop_the_run(ledger):
    ledger.check(0.5)
    message = r"4 of 8 rows \(50.00%\) of a.jsonl are malformed, over max_malformed 49.00%; "
    message += "mostly malformed: empty response"
    with pytest.raises(
        DataError,
        match=message + r" \(4 rows\), first at some/a.jsonl:1; fix them or raise max_malformed",
    ):
        ledger.check(0.49)


def test_ties_and_long_rows_do_not_count_as_malformed():
    ledger = Ledger("a", rows=3)
    ledger.add("a:1", "kept")
    ledger.add("a:2", "set aside", "tie")
    ledger.add("a:3", "overlong", "long")
    ledger.check(0.0)


def test_nothing_left_stops_the_run():
    ledger = Ledger("a", rows=1)
    ledger.add("a:1", "overlong", "prompt fills max_length")
    with pytest.raises(
        DataError, match=r"the only row of a cannot be trained on; overlong: prompt fills"
    ):
        ledger.check(1.0)
    with pytest.raises(DataError, match="a has no rows"):
        Ledger("a").check(1.0)


def test_the_table_stays_short():
    ledger = Ledger("a", rows=13)
    for i in range(13):
        ledger.add(f"a:{i}", "malformed", f"unknown role {i}")
    assert "  and 3 less common reasons" in ledger.table().splitlines()
    assert len(json.loads(ledger.to_json())["reasons"]) == 13


def test_a_row_without_a_fate_is_our_mistake(ledger):
    ledger.rows += 1
    with pytest.raises(RuntimeError, match=r"9 rows of a.jsonl were read, but 8 have a fate"):
        ledger.check(1.0)
    with pytest.raises(ValueError, match="'lost' is no fate"):
        ledger.add("a", "lost")


def test_each_row_that_is_not_simply_kept_has_its_place_on_file(ledger, tmp_path):
    write_ledgers(tmp_path / "run", {"train": ledger})
    rows = [json.loads(line) for line in (tmp_path / "run/ledger_rows.jsonl").open()]
    assert [row["place"] for row in rows] == [f"some/a.jsonl:{i}" for i in (1, 2, 3, 4, 5, 8)]
    assert rows[0] == {
        "split": "train",
        "place": "some/a.jsonl:1",
        "fate": "malformed",
        "reason": "empty response",
    }
    book = json.loads((tmp_path / "run/ledger.json").read_text())
    assert book["train"]["fates"] == ledger.fates


def test_unread_columns_are_counted(ledger):
    ledger.add_unread("source")
    ledger.add_unread("turn.timestamp", 3)
    assert "not read: turn.timestamp (3), source (1)" in ledger.table().splitlines()
    assert json.loads(ledger.to_json())["unread"] == {"source": 1, "turn.timestamp": 3}
    for i in range(30):
        ledger.add_unread(f"column {i}")
    assert ledger.table().splitlines()[-1].endswith(", and 12 others")


def test_cut_ends_are_said():
    ledger = Ledger("a", rows=1)
    tree = Tree([1], [[2], [3]], [[True], [True]], Group("", []))
    ledger.measure(tree, cut=4, ends_lost=1)
    assert not ledger.notes
    ledger.measure(tree, cut=4, ends_lost=2)
    (note,) = ledger.notes
    assert note.startswith("the end of 3 of 4 responses is cut off")
    assert f"note: {note}" in ledger.table().splitlines()
    assert json.loads(ledger.to_json())["notes"] == [note]
