"""Files of earlier versions open, and keep their votes, links and order."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lit_align.labelling.store import Store
from lit_align.labelling.votes import read_votes

DUMP = Path(__file__).with_name("store_of_earlier_version.sql")
ANSWERS = [
    ("ada", 1, 1, "vote", {"preference": -2}, ""),
    ("ada", 2, 1, "vote", {"preference": 3}, ""),
    ("ada", 3, 1, "vote", {"preference": 0}, ""),
    ("bob", 1, 1, "vote", {"preference": -1}, ""),
    ("bob", 2, 1, "skip", {}, "unclear"),
    ("ada", 2, 2, "undo", {}, ""),
]
"""Who answered which task, in the order of the file."""


@pytest.fixture
def path(tmp_path):
    """A store of a version without introductions and states: two annotators, three tasks and a gold task."""
    path = tmp_path / "labels.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(DUMP.read_text())
    return path


def history(path):
    columns = ("annotator", "task", "revision", "verdict", "answer", "note")
    return [tuple(getattr(vote, name) for name in columns) for vote in read_votes(path).history]


def test_votes_are_read_without_a_change_to_the_file(path):
    before = path.read_bytes()
    assert history(path) == ANSWERS
    assert [group.extra for group in read_votes(path).groups.values()][:3] == [
        {"level": level} for level in range(3)
    ]
    assert path.read_bytes() == before


def test_the_file_opens_and_goes_on(path):
    for _ in range(2):  # bringing it up to date twice changes nothing
        store = Store(path, votes=2, gold_every=1000)
    assert history(path) == ANSWERS
    secret, _ = store.open_session("token of ada")
    assert store.session_person(secret) == 1
    task = store.next_task(1)
    assert (task.number, task.revision, task.prompt) == (2, 3, "Question 1?")
    store.record_vote(1, 2, 3, "vote", {"preference": 1})
    assert store.progress(1)[:2] == (3, 0)
    assert not store.has_ended
    with pytest.raises(sqlite3.IntegrityError, match="a vote is never"):
        store.db.execute("DELETE FROM votes")
