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
from statistics import median
from typing import Any, NamedTuple

from lit_align.errors import ConfigError, DataError, LitAlignError
from lit_align.labelling.campaign import known, questions, urgency
from lit_align.types import Group, Text

SCHEMA = Path(__file__).with_name("schema.sql")
LEASE = (
    900.0  # seconds that a task shown to somebody is not offered to more people than are to vote
)
MINE = "NOT EXISTS (SELECT 1 FROM shown WHERE task = tasks.id AND person = :person"


class Stale(LitAlignError):
    """Another answer to the task was recorded since the page was made, or the task was never shown."""


class Task(NamedTuple):
    """A task as one person sees it, as the ``number``-th; ``order`` has the index of each response in the group.

    An answer given now would have ``revision``; ``verdict``, ``answer`` and ``note`` are the last one, or an undo.
    """

    id: int
    number: int
    kind: str
    prompt: Text
    responses: list[Text]
    order: tuple[int, ...]
    since: float
    revision: int
    verdict: str
    answer: dict[str, Any]
    note: str


class Store:
    """The file, with a connection for each thread; each task is for so many ``votes``, as in `Campaign`."""

    def __init__(self, path: str | Path, votes: int = 3, gold_every: int = 10) -> None:
        self.path, self.votes, self.gold_every = Path(path), votes, gold_every
        self._threads = threading.local()
        try:
            self.db.executescript(SCHEMA.read_text("utf-8"))
        except sqlite3.Error as error:
            raise ConfigError(
                f"{path} cannot be used as a store: {error}; name another file"
            ) from error

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

    def add(
        self, groups: Sequence[Group], kind: str, gold: bool = False, uncertainty: str = ""
    ) -> int:
        """Take up the tasks of these groups; those that are there already keep their votes. How many there are."""
        count, seen = 0, Counter[str]()
        replace = "ON CONFLICT DO UPDATE SET place = excluded.place, gold = excluded.gold"
        with self.writing() as db:
            for k, group in enumerate(groups):
                text = [
                    json.dumps(one, ensure_ascii=False) for one in (group.prompt, group.responses)
                ]
                digest = _hash("\n".join([*text, str(gold)]))
                seen[digest] += 1
                digest += f":{seen[digest]}"  # the same row twice is two groups
                row = (digest, *text, group.source, json.dumps(group.extra, default=str))
                try:
                    db.execute(
                        "INSERT INTO groups VALUES (NULL, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                        row,
                    )
                except UnicodeEncodeError as error:
                    raise DataError(
                        f"{group.source} has half of a surrogate pair; leave that row out"
                    ) from error
                (number,) = self.one("SELECT id FROM groups WHERE digest = ?", digest)
                place = -urgency(group, uncertainty) if uncertainty else float(k)
                for members in questions(group, kind):
                    answer = known(group, kind, members) if gold else None
                    if bool(answer) == gold:
                        task = (
                            number,
                            kind,
                            json.dumps(members),
                            answer and json.dumps(answer),
                            place,
                        )
                        db.execute(
                            f"INSERT INTO tasks VALUES (NULL, ?, ?, ?, ?, ?, 0) {replace}", task
                        )
                        count += 1
        return count

    def invite(self, name: str, admin: bool = False, renew: bool = True) -> str | None:
        """A new secret for a link, which shuts the old one out; None without ``renew`` if there is one already."""
        token, conflict = (
            secrets.token_urlsafe(32),
            "UPDATE SET token = excluded.token" if renew else "NOTHING",
        )
        with self.writing() as db:
            insert = (
                f"INSERT INTO people VALUES (NULL, ?, ?, ?) ON CONFLICT (name, admin) DO {conflict}"
            )
            return token if db.execute(insert, (name, admin, _hash(token))).rowcount else None

    def enter(self, token: str) -> tuple[str, bool] | None:
        """The secret of a new session, and whether it is an admin's; None if no link has this token."""
        row, secret = (
            self.one("SELECT id, admin FROM people WHERE token = ?", _hash(token)),
            secrets.token_urlsafe(32),
        )
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

    def open(self, person: int, number: int) -> Task:
        """The same as `task`, on the page once more."""
        with self.writing(durable=False):
            return self._show(person, self.task(person, number).id)

    def _gold(self, person: int) -> Any:
        """One at a random place in every ``gold_every`` tasks: nobody can count on it."""
        (count,) = self.one("SELECT count(*) FROM shown WHERE person = ?", person)
        place = random.Random(f"{person}:{count // self.gold_every}").randrange(self.gold_every)
        query = f"SELECT id FROM tasks WHERE gold IS NOT NULL AND {MINE}) ORDER BY id LIMIT 1"
        return self.one(query, person=person) if count % self.gold_every == place else None

    def _wanting(self, person: int) -> Any:
        """With what others are looking at counted as if they had voted."""
        busy = "SELECT count(*) FROM shown WHERE task = tasks.id AND state = 'open' AND at > :since"
        query = f"SELECT id FROM tasks WHERE gold IS NULL AND taken < :votes AND {MINE}) AND taken + ({busy}) < :votes"
        named = {"person": person, "votes": self.votes, "since": time.time() - LEASE}
        return self.one(f"{query} ORDER BY place, id LIMIT 1", **named)

    def _show(self, person: int, task: int) -> Task:
        """With a number of the person's own, as one that is everybody's would tell gold tasks from the others."""
        now, following = (
            time.time(),
            "SELECT ifnull(max(number), 0) + 1 FROM shown WHERE person = :person",
        )
        again = "ON CONFLICT DO UPDATE SET at = excluded.at WHERE state <> 'open' OR at < :since"
        insert = f"INSERT INTO shown VALUES (:task, :person, ({following}), 'open', :now) {again}"
        self.db.execute(insert, {"task": task, "person": person, "now": now, "since": now - LEASE})
        return self.task(
            person,
            *self.one("SELECT number FROM shown WHERE task = ? AND person = ?", task, person),
        )

    def task(self, person: int, number: int) -> Task:
        """What this person was shown as the ``number``-th; raises Stale if that is nothing."""
        query = (
            "SELECT tasks.id, kind, shown.at, ifnull(revision, 0) + 1, ifnull(verdict, 'undo'), ifnull(note, ''), "
            "prompt, responses, members, ifnull(answer, '{}') FROM shown LEFT JOIN latest USING (person, task) "
            "JOIN tasks ON tasks.id = task JOIN groups ON groups.id = grp WHERE person = ? AND number = ?"
        )
        row = self.one(query, person, number)
        if row is None:
            raise Stale("you were never shown that task; go on with the next one")
        task, kind, since, revision, verdict, note = row[:6]
        prompt, responses, members, answer = map(json.loads, row[6:])
        order = tuple(
            random.Random(f"{person}:{task}").sample(members, len(members))
        )  # always the same
        shown = [responses[i] for i in order]
        return Task(
            task, number, kind, prompt, shown, order, since, revision, verdict, answer, note
        )

    def record(
        self,
        person: int,
        number: int,
        revision: int,
        verdict: str,
        answer: dict[str, Any],
        note: str = "",
    ) -> None:
        """Keep an answer for good; one that came before is the same one, whatever became of the first reply.

        It is of the ``number``-th task that this person was shown, of the responses as they were; the ``revision`` is
        1 for the first answer to that task, 2 for what is said instead of it. Raises Stale if something else was
        recorded under that revision, or the one before it is missing.
        """
        said, now = (verdict, json.dumps(answer, sort_keys=True), note), time.time()
        with self.writing() as db:
            task = self.task(person, number)
            query = "SELECT verdict, answer, note FROM votes WHERE person = ? AND task = ? AND revision = ?"
            before = self.one(query, person, task.id, revision)
            if before == said:
                return
            if before or revision != task.revision or verdict == task.verdict == "undo":
                raise Stale(
                    "this was answered in another window since; go on from the answer that is recorded"
                )
            seconds = min(max(now - task.since, 0.0), LEASE)  # whoever takes longer is not at it
            row = (person, task.id, revision, *said[:2], json.dumps(task.order), note, seconds, now)
            db.execute("INSERT INTO votes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def mine(self, person: int, limit: int = 100) -> list[tuple[int, int, str, str]]:
        """This person's answers that stand, newest first: number, revision, verdict and prompt."""
        query = (
            "SELECT number, revision, verdict, prompt FROM latest JOIN shown USING (person, task) "
            "JOIN tasks ON tasks.id = task JOIN groups ON groups.id = grp WHERE person = ? AND verdict <> 'undo' "
            "ORDER BY latest.id DESC LIMIT ?"
        )
        return self.db.execute(query, (person, limit)).fetchall()

    def progress(self, person: int) -> tuple[int, int, float]:
        """Tasks this person is done with, tasks left, and the median seconds of the last twenty.

        As many gold tasks as are usual count as left, so that the sum does not change when one is answered.
        """
        query = "SELECT count(*), count(*) - count(gold) FROM shown JOIN tasks ON id = task WHERE person = ?"
        done, plain = self.one(f"{query} AND state <> 'open'", person)
        query = f"SELECT count(*) FROM tasks WHERE gold IS NULL AND taken < :votes AND {MINE} AND state <> 'open')"
        (left,) = self.one(query, person=person, votes=self.votes)
        (gold,) = self.one("SELECT count(*) FROM tasks WHERE gold IS NOT NULL")
        if left:
            left = max(
                left, plain + left + min(gold, (plain + left) // (self.gold_every - 1)) - done
            )
        pace = "SELECT seconds FROM votes WHERE person = ? AND verdict <> 'undo' ORDER BY id DESC LIMIT 20"
        return done, left, median([value for (value,) in self.db.execute(pace, (person,))] or [0.0])


def _hash(secret: str) -> str:
    """What is kept of a secret: 256 random bits need no salt."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
