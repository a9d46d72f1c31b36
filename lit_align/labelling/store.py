"""Tasks, people and votes in one SQLite file: what was acknowledged is on disk, and nothing is ever written over."""

from __future__ import annotations

import hashlib
import json
import random
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lit_align.batches import Group, Text
from lit_align.errors import ConfigError, LitAlignError
from lit_align.labelling.tasks import known, questions, urgency

SCHEMA = """
CREATE TABLE IF NOT EXISTS groups (id INTEGER PRIMARY KEY, digest TEXT UNIQUE, prompt TEXT, responses TEXT,
    source TEXT, extra TEXT);
CREATE TABLE IF NOT EXISTS tasks (id INTEGER PRIMARY KEY, grp INTEGER REFERENCES groups, kind TEXT, members TEXT,
    gold TEXT, place REAL, taken INTEGER DEFAULT 0, UNIQUE (grp, kind, members));
CREATE INDEX IF NOT EXISTS tasks_by_place ON tasks (place, id);
CREATE TABLE IF NOT EXISTS people (id INTEGER PRIMARY KEY, name TEXT, admin INTEGER, token TEXT UNIQUE,
    UNIQUE (name, admin));
CREATE TABLE IF NOT EXISTS sessions (secret TEXT PRIMARY KEY, person INTEGER REFERENCES people) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shown (task INTEGER REFERENCES tasks, person INTEGER REFERENCES people, state TEXT, at REAL,
    PRIMARY KEY (task, person)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shown_by_person ON shown (person, state);
CREATE TABLE IF NOT EXISTS votes (id INTEGER PRIMARY KEY, person INTEGER REFERENCES people,
    task INTEGER REFERENCES tasks, revision INTEGER, verdict TEXT, answer TEXT, shown TEXT, note TEXT, seconds REAL,
    at REAL, UNIQUE (person, task, revision));
CREATE INDEX IF NOT EXISTS votes_by_person ON votes (person, id);
"""
LEASE = 900.0  # seconds that a task shown to somebody is not offered to more people than are to vote
STATES = {"vote": "voted", "skip": "skipped", "undo": "open"}


class Stale(LitAlignError):
    """Another answer to the task was recorded since the page was made, or the task was never shown."""


class Task(NamedTuple):
    """A task as one person sees it.

    Args:
        id: of the task.
        kind: how it is answered.
        prompt: what the responses answer.
        responses: in the order they are shown.
        order: index in the group of each response shown.
        revision: what an answer given now would be the how-manieth of.
        answer: what this person answered last, by index in the group; empty if nothing.
        note: and remarked.
    """

    id: int
    kind: str
    prompt: Text
    responses: list[Text]
    order: tuple[int, ...]
    revision: int
    answer: dict[str, Any]
    note: str


class Person(NamedTuple):
    """Somebody who came in by a link."""

    id: int
    name: str


class Store:
    """The file, with a connection for each thread.

    Args:
        path: of the file.
        votes: people that each task is shown to.
        gold_every: one task in so many is one whose answer is known.
    """

    def __init__(self, path: str | Path, votes: int = 3, gold_every: int = 10) -> None:
        self.path, self.votes, self.gold_every = Path(path), votes, gold_every
        self._threads = threading.local()
        try:
            self.db.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise ConfigError(f"{path} cannot be used as a store: {error}; name another file") from error

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection."""
        found: sqlite3.Connection | None = getattr(self._threads, "db", None)
        if found is None:
            found = self._threads.db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            for pragma in ("journal_mode = WAL", "foreign_keys = ON"):
                found.execute(f"PRAGMA {pragma}")
        return found

    @contextmanager
    def writing(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """All of it, or nothing; on the disk at the end, unless losing it with the power does no harm."""
        self.db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def add(self, groups: Sequence[Group], kind: str, gold: bool = False, uncertainty: str = "") -> int:
        """Take up the tasks of these groups; those that are there already keep their votes. How many there are."""
        count, seen = 0, Counter[str]()
        with self.writing() as db:
            for k, group in enumerate(groups):
                text = [json.dumps(one, ensure_ascii=False) for one in (group.prompt, group.responses)]
                digest = _hash("\n".join([*text, str(gold)]))
                seen[digest] += 1
                digest += f":{seen[digest]}"  # the same row twice is two groups
                row = (digest, *text, group.source, json.dumps(group.extra, ensure_ascii=False, default=str))
                db.execute("INSERT INTO groups VALUES (NULL, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
                (number,) = db.execute("SELECT id FROM groups WHERE digest = ?", (digest,)).fetchone()
                place = -urgency(group, uncertainty) if uncertainty else float(k)
                for members in questions(group, kind):
                    answer = known(group, kind, members) if gold else None
                    if gold and answer is None:
                        continue
                    task = (number, kind, json.dumps(members), json.dumps(answer) if gold else None, place)
                    db.execute(
                        "INSERT INTO tasks VALUES (NULL, ?, ?, ?, ?, ?, 0) ON CONFLICT DO UPDATE SET place = "
                        "excluded.place",
                        task,
                    )
                    count += 1
        return count

    def invite(self, name: str, admin: bool = False, renew: bool = True) -> str | None:
        """A new secret for the link of ``name``; the old one and who came in by it are shut out.

        Args:
            name: of the person.
            admin: whether it opens the admin page.
            renew: whether somebody who has a link gets another; None is returned if not.
        """
        token = secrets.token_urlsafe(32)
        with self.writing() as db:
            row = db.execute("SELECT id FROM people WHERE name = ? AND admin = ?", (name, admin)).fetchone()
            if row and not renew:
                return None
            if row:
                db.execute("UPDATE people SET token = ? WHERE id = ?", (_hash(token), *row))
                db.execute("DELETE FROM sessions WHERE person = ?", row)
            else:
                db.execute("INSERT INTO people VALUES (NULL, ?, ?, ?)", (name, admin, _hash(token)))
        return token

    def enter(self, token: str) -> tuple[str, bool] | None:
        """The secret of a new session, and whether it is an admin's; None if no link has this token."""
        row = self.db.execute("SELECT id, admin FROM people WHERE token = ?", (_hash(token),)).fetchone()
        if row is None:
            return None
        secret = secrets.token_urlsafe(32)
        with self.writing() as db:
            db.execute("INSERT INTO sessions VALUES (?, ?)", (_hash(secret), row[0]))
        return secret, bool(row[1])

    def person(self, secret: str, admin: bool = False) -> Person | None:
        """Whose session that is."""
        query = "SELECT id, name FROM sessions JOIN people ON id = person WHERE secret = ? AND admin = ?"
        row = self.db.execute(query, (_hash(secret), admin)).fetchone()
        return row and Person(*row)

    def next(self, person: Person) -> Task | None:
        """What to answer next: what lies open, now and then a gold task, else the first that wants for votes."""
        with self.writing(durable=False) as db:
            open_ = "SELECT task FROM shown WHERE person = ? AND state = 'open' ORDER BY at DESC LIMIT 1"
            row = db.execute(open_, (person.id,)).fetchone()
            row = row or self._gold(person) or self._wanting(person)
            return row and self._show(person, row[0])

    def open(self, person: Person, task: int) -> Task | None:
        """A task that this person was shown before."""
        with self.writing(durable=False) as db:
            seen = db.execute("SELECT 1 FROM shown WHERE task = ? AND person = ?", (task, person.id)).fetchone()
            return self._show(person, task) if seen else None

    def _gold(self, person: Person) -> Any:
        done = "SELECT count(*) FROM shown WHERE person = ?"
        (count,) = self.db.execute(done, (person.id,)).fetchone()
        if (count + person.id) % self.gold_every:
            return None
        unseen = "gold IS NOT NULL AND NOT EXISTS (SELECT 1 FROM shown WHERE task = tasks.id AND person = ?)"
        return self.db.execute(f"SELECT id FROM tasks WHERE {unseen} ORDER BY id LIMIT 1", (person.id,)).fetchone()

    def _wanting(self, person: Person) -> Any:
        """With what is being looked at counted as if it were voted on; at the end, when nothing else is left, not."""
        mine = "SELECT 1 FROM shown WHERE task = tasks.id AND person = ?"
        busy = "SELECT count(*) FROM shown WHERE task = tasks.id AND state = 'open' AND at > ?"
        query = (
            f"SELECT id FROM tasks WHERE gold IS NULL AND taken < ? AND NOT EXISTS ({mine}) "
            f"AND taken + ({busy}) < ? ORDER BY place, id LIMIT 1"
        )
        return self.db.execute(query, (self.votes, person.id, time.time() - LEASE, self.votes)).fetchone()

    def _show(self, person: Person, number: int) -> Task:
        now = time.time()
        self.db.execute(
            "INSERT INTO shown VALUES (?, ?, 'open', ?) ON CONFLICT DO UPDATE SET at = excluded.at "
            "WHERE state <> 'open' OR at < ?",
            (number, person.id, now, now - LEASE),
        )
        query = "SELECT kind, prompt, responses, members FROM tasks JOIN groups ON groups.id = grp WHERE tasks.id = ?"
        kind, *texts = self.db.execute(query, (number,)).fetchone()
        prompt, responses, members = map(json.loads, texts)
        order = _order(person.id, number, members)
        last = self._last(person, number)
        revision, verdict, answer, note = last or (0, "undo", "{}", "")
        said = {} if verdict == "undo" else json.loads(answer)
        return Task(number, kind, prompt, [responses[i] for i in order], order, revision + 1, said, note)

    def _last(self, person: Person, task: int) -> tuple[int, str, str, str] | None:
        query = "SELECT revision, verdict, answer, note FROM votes WHERE person = ? AND task = ? ORDER BY revision DESC"
        row: tuple[int, str, str, str] | None = self.db.execute(f"{query} LIMIT 1", (person.id, task)).fetchone()
        return row

    def record(
        self, person: Person, task: int, revision: int, verdict: str, answer: dict[str, Any], note: str = ""
    ) -> None:
        """Keep an answer for good; one that came before is the same one, whatever became of the first reply.

        Args:
            person: whose.
            task: to which task.
            revision: 1 for the first answer of that person to that task, 2 for what is said instead of it, ...
            verdict: ``"vote"``, ``"skip"`` or ``"undo"``.
            answer: by index in the group.
            note: a remark.

        Raises:
            Stale: if something else was recorded under that revision, or the one before it is missing.
        """
        said = (verdict, json.dumps(answer, sort_keys=True), note)
        with self.writing() as db:
            query = "SELECT verdict, answer, note FROM votes WHERE person = ? AND task = ? AND revision = ?"
            before = db.execute(query, (person.id, task, revision)).fetchone()
            if before == said:
                return
            last = self._last(person, task) or ()
            seen = db.execute("SELECT at FROM shown WHERE task = ? AND person = ?", (task, person.id)).fetchone()
            if (
                before
                or not seen
                or revision != (last[0] if last else 0) + 1
                or (verdict == "undo" and last[1:2] in ((), ("undo",)))
            ):
                raise Stale("this was answered in another window since; go on from the answer that is recorded")
            (members,) = db.execute("SELECT members FROM tasks WHERE id = ?", (task,)).fetchone()
            shown, now = json.dumps(_order(person.id, task, json.loads(members))), time.time()
            row = (person.id, task, revision, *said[:2], shown, note, now - seen[0], now)
            db.execute("INSERT INTO votes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            state, at = STATES[verdict], now if verdict == "undo" else seen[0]
            db.execute("UPDATE shown SET state = ?, at = ? WHERE task = ? AND person = ?", (state, at, task, person.id))
            taken = "SELECT count(*) FROM shown WHERE task = tasks.id AND state = 'voted'"
            db.execute(f"UPDATE tasks SET taken = ({taken}) WHERE id = ?", (task,))

    def asked(self, person: Person, task: int) -> tuple[str, tuple[int, ...]]:
        """Kind of a task, and the order in which this person sees its responses.

        Raises:
            Stale: if this person was never shown such a task.
        """
        query = "SELECT kind, members FROM tasks JOIN shown ON task = id WHERE id = ? AND person = ?"
        row = self.db.execute(query, (task, person.id)).fetchone()
        if row is None:
            raise Stale("you were never shown that task; go on with the next one")
        return row[0], _order(person.id, task, json.loads(row[1]))

    def mine(self, person: Person, limit: int = 100) -> list[tuple[int, int, str, str, str]]:
        """This person's answers that stand, newest first: task, revision, verdict, answer and prompt."""
        query = (
            "SELECT v.task, v.revision, v.verdict, v.answer, g.prompt FROM votes v JOIN tasks t ON t.id = v.task "
            "JOIN groups g ON g.id = t.grp WHERE v.person = ? AND v.verdict <> 'undo' AND v.revision = "
            "(SELECT max(revision) FROM votes WHERE person = v.person AND task = v.task) ORDER BY v.id DESC LIMIT ?"
        )
        return self.db.execute(query, (person.id, limit)).fetchall()

    def progress(self, person: Person) -> tuple[int, int, float]:
        """Tasks this person is done with, tasks left, and the seconds that one of the last twenty took (the median)."""
        done = "SELECT count(*) FROM shown WHERE person = ? AND state <> 'open'"
        left = (
            "SELECT count(*) FROM tasks WHERE gold IS NULL AND taken < ? AND NOT EXISTS "
            "(SELECT 1 FROM shown WHERE task = tasks.id AND person = ? AND state <> 'open')"
        )
        pace = "SELECT seconds FROM votes WHERE person = ? AND verdict <> 'undo' ORDER BY id DESC LIMIT 20"
        seconds = sorted(value for (value,) in self.db.execute(pace, (person.id,)))
        counts = [self.db.execute(done, (person.id,)), self.db.execute(left, (self.votes, person.id))]
        finished, remaining = (cursor.fetchone()[0] for cursor in counts)
        return finished, remaining, seconds[len(seconds) // 2] if seconds else 0.0


def _hash(secret: str) -> str:
    """What is kept of a secret: 256 random bits need no salt."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _order(person: int, task: int, members: Sequence[int]) -> tuple[int, ...]:
    """The responses as this person sees them, always in the same order."""
    return tuple(random.Random(f"{person}:{task}").sample(list(members), len(members)))
