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

SCHEMA = Path(__file__).with_name("schema.sql")
LEASE = 900.0  # seconds that a task shown to somebody is not offered to more people than are to vote
MINE = "NOT EXISTS (SELECT 1 FROM shown WHERE task = tasks.id AND person = :person"


class Stale(LitAlignError):
    """Another answer to the task was recorded since the page was made, or the task was never shown."""


class Task(NamedTuple):
    """A task as one person sees it: responses as they are shown, and ``order``, the index in the group of each.

    An answer given now would have ``revision``; ``answer`` and ``note`` are what this person said last, if anything.
    """

    id: int
    kind: str
    prompt: Text
    responses: list[Text]
    order: tuple[int, ...]
    revision: int
    answer: dict[str, Any]
    note: str


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
            self.db.executescript(SCHEMA.read_text("utf-8"))
        except sqlite3.Error as error:
            raise ConfigError(f"{path} cannot be used as a store: {error}; name another file") from error

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self._threads, "db"):
            self._threads.db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            self._threads.db.executescript("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON")
        found: sqlite3.Connection = self._threads.db
        return found

    def one(self, query: str, *given: Any, **named: Any) -> Any:
        """The first row of what is asked; None if there is none."""
        return self.db.execute(query, named or given).fetchone()

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
                (number,) = self.one("SELECT id FROM groups WHERE digest = ?", digest)
                place = -urgency(group, uncertainty) if uncertainty else float(k)
                for members in questions(group, kind):
                    answer = known(group, kind, members) if gold else None
                    if gold and answer is None:
                        continue
                    task = (number, kind, json.dumps(members), json.dumps(answer) if gold else None, place)
                    replace = "ON CONFLICT DO UPDATE SET place = excluded.place"
                    db.execute(f"INSERT INTO tasks VALUES (NULL, ?, ?, ?, ?, ?, 0) {replace}", task)
                    count += 1
        return count

    def invite(self, name: str, admin: bool = False, renew: bool = True) -> str | None:
        """A new secret for the link of ``name``; the old one and who came in by it are shut out.

        Without ``renew``, somebody who has a link keeps it, and None is returned.
        """
        token, conflict = secrets.token_urlsafe(32), "UPDATE SET token = excluded.token" if renew else "NOTHING"
        with self.writing() as db:
            insert = f"INSERT INTO people VALUES (NULL, ?, ?, ?) ON CONFLICT (name, admin) DO {conflict}"
            return token if db.execute(insert, (name, admin, _hash(token))).rowcount else None

    def enter(self, token: str) -> tuple[str, bool] | None:
        """The secret of a new session, and whether it is an admin's; None if no link has this token."""
        row, secret = self.one("SELECT id, admin FROM people WHERE token = ?", _hash(token)), secrets.token_urlsafe(32)
        if row is None:
            return None
        with self.writing() as db:
            db.execute("INSERT INTO sessions VALUES (?, ?)", (_hash(secret), row[0]))
        return secret, bool(row[1])

    def person(self, secret: str, admin: bool = False) -> int | None:
        """Whose session that is."""
        query = "SELECT id FROM sessions JOIN people ON id = person WHERE secret = ? AND admin = ?"
        row = self.one(query, _hash(secret), admin)
        return row and int(row[0])

    def next(self, person: int) -> Task | None:
        """What to answer next: what lies open, now and then a gold task, else the first that wants for votes."""
        with self.writing(durable=False):
            query = "SELECT task FROM shown WHERE person = ? AND state = 'open' ORDER BY at DESC"
            row = self.one(query, person) or self._gold(person) or self._wanting(person)
            return row and self._show(person, row[0])

    def open(self, person: int, task: int) -> Task | None:
        """A task that this person was shown before."""
        with self.writing(durable=False):
            seen = self.one("SELECT 1 FROM shown WHERE task = ? AND person = ?", task, person)
            return self._show(person, task) if seen else None

    def _gold(self, person: int) -> Any:
        (count,) = self.one("SELECT count(*) FROM shown WHERE person = ?", person)
        query = f"SELECT id FROM tasks WHERE gold IS NOT NULL AND {MINE}) ORDER BY id LIMIT 1"
        return None if (count + person) % self.gold_every else self.one(query, person=person)

    def _wanting(self, person: int) -> Any:
        """With what others are looking at counted as if they had voted."""
        busy = "SELECT count(*) FROM shown WHERE task = tasks.id AND state = 'open' AND at > :since"
        query = f"SELECT id FROM tasks WHERE gold IS NULL AND taken < :votes AND {MINE}) AND taken + ({busy}) < :votes"
        named = {"person": person, "votes": self.votes, "since": time.time() - LEASE}
        return self.one(f"{query} ORDER BY place, id LIMIT 1", **named)

    def _show(self, person: int, number: int) -> Task:
        now = time.time()
        again = "ON CONFLICT DO UPDATE SET at = excluded.at WHERE state <> 'open' OR at < ?"
        self.db.execute(f"INSERT INTO shown VALUES (?, ?, 'open', ?) {again}", (number, person, now, now - LEASE))
        query = "SELECT kind, prompt, responses, members FROM tasks JOIN groups ON groups.id = grp WHERE tasks.id = ?"
        kind, *texts = self.one(query, number)
        prompt, responses, members = map(json.loads, texts)
        order = _order(person, number, members)
        revision, verdict, answer, note = self._last(person, number)
        said = {} if verdict == "undo" else json.loads(answer)
        return Task(number, kind, prompt, [responses[i] for i in order], order, revision + 1, said, note)

    def _last(self, person: int, task: int) -> tuple[int, str, str, str]:
        query = "SELECT revision, verdict, answer, note FROM votes WHERE person = ? AND task = ? ORDER BY revision DESC"
        return self.one(query, person, task) or (0, "undo", "{}", "")

    def asked(self, person: int, task: int) -> tuple[str, tuple[int, ...]]:
        """Kind of a task, and the order in which this person sees its responses.

        Raises:
            Stale: if this person was never shown such a task.
        """
        query = "SELECT kind, members FROM tasks JOIN shown ON task = id WHERE id = ? AND person = ?"
        row = self.one(query, task, person)
        if row is None:
            raise Stale("you were never shown that task; go on with the next one")
        return row[0], _order(person, task, json.loads(row[1]))

    def record(
        self, person: int, task: int, revision: int, verdict: str, answer: dict[str, Any], note: str = ""
    ) -> None:
        """Keep an answer for good; one that came before is the same one, whatever became of the first reply.

        Args:
            person: whose.
            task: to which task.
            revision: 1 for the first answer of that person to that task, 2 for what is said instead of it, ...
            verdict: ``"vote"``, ``"skip"`` or ``"undo"``.
            answer: of the responses as they are shown.
            note: a remark.

        Raises:
            Stale: if something else was recorded under that revision, or the one before it is missing.
        """
        said = (verdict, json.dumps(answer, sort_keys=True), note)
        with self.writing() as db:
            query = "SELECT verdict, answer, note FROM votes WHERE person = ? AND task = ? AND revision = ?"
            before, (last, was, *_) = self.one(query, person, task, revision), self._last(person, task)
            if before == said:
                return
            if before or revision != last + 1 or verdict == was == "undo":
                raise Stale("this was answered in another window since; go on from the answer that is recorded")
            shown, now = json.dumps(self.asked(person, task)[1]), time.time()
            (since,) = self.one("SELECT at FROM shown WHERE task = ? AND person = ?", task, person)
            row = (person, task, revision, *said[:2], shown, note, now - since, now)
            db.execute("INSERT INTO votes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def mine(self, person: int, limit: int = 100) -> list[tuple[int, int, str, str]]:
        """This person's answers that stand, newest first: task, revision, verdict and prompt."""
        query = (
            "SELECT v.task, v.revision, v.verdict, g.prompt FROM standing v JOIN tasks t ON t.id = v.task "
            "JOIN groups g ON g.id = t.grp WHERE v.person = ? ORDER BY v.id DESC LIMIT ?"
        )
        return self.db.execute(query, (person, limit)).fetchall()

    def progress(self, person: int) -> tuple[int, int, float]:
        """Tasks this person is done with, tasks left, and the seconds that one of the last twenty took (the median)."""
        done = self.one("SELECT count(*) FROM shown WHERE person = ? AND state <> 'open'", person)
        query = f"SELECT count(*) FROM tasks WHERE gold IS NULL AND taken < :votes AND {MINE} AND state <> 'open')"
        left = self.one(query, person=person, votes=self.votes)
        pace = "SELECT seconds FROM votes WHERE person = ? AND verdict <> 'undo' ORDER BY id DESC LIMIT 20"
        seconds = sorted(value for (value,) in self.db.execute(pace, (person,)))
        return done[0], left[0], seconds[len(seconds) // 2] if seconds else 0.0


def _hash(secret: str) -> str:
    """What is kept of a secret: 256 random bits need no salt."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _order(person: int, task: int, members: Sequence[int]) -> tuple[int, ...]:
    """The responses as this person sees them, always in the same order."""
    return tuple(random.Random(f"{person}:{task}").sample(list(members), len(members)))
