"""Tasks, people and votes in one SQLite file: what was acknowledged is on disk, and nothing is ever overwritten."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from lit_align.data.formats.groups import rendering_columns
from lit_align.errors import DataError, LitAlignError
from lit_align.labelling.campaign import gold_answer, task_members, uncertainty_of
from lit_align.labelling.people import People, hash_secret
from lit_align.labelling.votes import RETRACTED
from lit_align.types import Group, Text

DEFAULT_VOTES = 3
"""Votes per task of a new store."""
LEASE = 900.0
"""Seconds for which a task that is shown to an annotator counts as if it had that vote already."""
SHOWN_TO = "SELECT 1 FROM shown WHERE task = tasks.id AND person = :person"
TASK_QUERY = (
    "SELECT tasks.id, kind, shown.at, ifnull(revision, 0) + 1, ifnull(verdict, 'undo'), ifnull(note, ''), "
    "prompt, responses, members, ifnull(answer, '{}') FROM shown LEFT JOIN latest USING (person, task) "
    "JOIN tasks ON tasks.id = task JOIN groups ON groups.id = grp WHERE person = ? AND number = ?"
)
RECENT_QUERY = (
    "SELECT number, revision, verdict, note, kind, prompt, answer FROM latest JOIN shown USING (person, task) "
    f"JOIN tasks ON tasks.id = task JOIN groups ON groups.id = grp WHERE person = ? AND verdict NOT IN {RETRACTED} "
    "ORDER BY latest.id DESC LIMIT ?"
)
DONE_QUERY = (
    "SELECT count(*), count(*) - count(gold) FROM shown JOIN tasks ON id = task "
    "WHERE person = ? AND state <> 'open'"
)
UNFINISHED_QUERY = "SELECT count(*) FROM tasks WHERE gold IS NULL AND taken < ?"
OWN_UNFINISHED_QUERY = (
    "SELECT count(*) FROM shown JOIN tasks ON id = task "
    "WHERE person = ? AND state <> 'open' AND gold IS NULL AND taken < ?"
)
SECONDS_QUERY = (
    f"SELECT seconds FROM votes WHERE person = ? AND verdict NOT IN {RETRACTED} AND seconds > 0 "
    "ORDER BY id DESC LIMIT 20"
)


class Stale(LitAlignError):
    """Another answer to the task was recorded since the page was made, or the task was never shown."""


class NeverShown(Stale):
    """The task was never shown to this person."""


class Ended(LitAlignError):
    """The campaign has ended, and takes no more answers."""


class AssignedTask(NamedTuple):
    """A task as one annotator sees it.

    Args:
        id: number of the task in the store.
        number: its number for this annotator: it is the ``number``-th that was shown.
        kind: how it is answered.
        prompt: the prompt.
        responses: the responses as shown.
        order: index in the group of each response.
        since: when it was shown, in seconds since 1970.
        revision: the revision that an answer given now would have.
        verdict: verdict of the last answer; ``"undo"`` if there was none.
        answer: the last answer itself.
        note: its remark.
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


class OwnAnswer(NamedTuple):
    """An answer as its author sees it again.

    Args:
        number: number of the task for this annotator.
        revision: which answer to that task it is.
        verdict: ``"vote"`` or ``"skip"``.
        note: its remark.
        kind: how the task is answered.
        prompt: the prompt.
        answer: the answer itself, about the responses as shown.
    """

    number: int
    revision: int
    verdict: str
    note: str
    kind: str
    prompt: Text
    answer: dict[str, Any]


class Store(People):
    """Tasks, people and votes; the settings are those of `Campaign`.

    Args:
        path: the file, which is made if there is none.
        votes: people that each task is shown to; None keeps what the file says.
        gold_every: one task in so many is a gold task.
        session_days: days after which a session is over.
    """

    def __init__(
        self,
        path: str | Path,
        votes: int | None = None,
        gold_every: int = 10,
        session_days: float = 30.0,
    ) -> None:
        super().__init__(Path(path), session_days)
        self.gold_every = gold_every
        if votes not in (None, self.votes):
            self.votes = votes

    @property
    def votes(self) -> int:
        """People that each task is shown to; kept in the file, so that it can change while the page is open."""
        return int(self.get_state("votes") or DEFAULT_VOTES)

    @votes.setter
    def votes(self, votes: int) -> None:
        self.set_state("votes", votes)

    @property
    def has_ended(self) -> bool:
        """Whether the campaign takes no more answers."""
        return self.get_state("ended") is not None

    @property
    def has_tasks(self) -> bool:
        """Whether there is anything to ask about."""
        return self.fetch_one("SELECT 1 FROM tasks") is not None

    def add_tasks(
        self,
        groups: Sequence[Group],
        kind: str,
        gold: bool = False,
        uncertainty: str = "",
        first_place: float = 0.0,
    ) -> int:
        """Add the tasks of these groups and return how many there are; existing ones keep their votes.

        Args:
            groups: what the tasks are made of.
            kind: how they are answered.
            gold: whether their answers are known, and they are there to measure annotators.
            uncertainty: column by which they are ordered, the largest first.
            first_place: place of the first one without such a column; smaller places are shown first.
        """
        num_tasks, num_seen = 0, Counter[str]()
        with self.transaction():
            for position, group in enumerate(groups):
                prompt = json.dumps(group.prompt, ensure_ascii=False)
                responses = json.dumps(group.responses, ensure_ascii=False)
                content = "\n".join([prompt, responses, str(gold)])
                content_hash = hash_secret(content)
                num_seen[content_hash] += 1  # the same row twice is two groups
                digest = f"{content_hash}:{num_seen[content_hash]}"
                number = self._add_group(digest, prompt, responses, group)
                place = (
                    -uncertainty_of(group, uncertainty) if uncertainty else first_place + position
                )
                for members in task_members(group, kind):
                    answer = gold_answer(group, kind, members) if gold else None
                    if bool(answer) == gold:
                        self._add_task(number, kind, members, answer, place)
                        num_tasks += 1
        return num_tasks

    def add_task(
        self,
        group: Group,
        kind: str,
        members: tuple[int, ...],
        gold_answer: dict[str, Any] | None = None,
    ) -> int:
        """Add one task about a group, as a row of its own and after all others; within a transaction."""
        prompt = json.dumps(group.prompt, ensure_ascii=False)
        responses = json.dumps(group.responses, ensure_ascii=False)
        content_hash = hash_secret("\n".join([prompt, responses, str(gold_answer is not None)]))
        query = (
            "SELECT tasks.id FROM tasks JOIN groups ON groups.id = grp "
            "WHERE digest = ? AND kind = ? AND members = ?"
        )
        task = (kind, json.dumps(members))
        copy = 1  # the first row of that content that is not asked about in this way
        while self.fetch_one(query, f"{content_hash}:{copy}", *task):
            copy += 1
        digest = f"{content_hash}:{copy}"
        number = self._add_group(digest, prompt, responses, group)
        (last_place,) = self.fetch_one("SELECT ifnull(max(place), -1) FROM tasks")
        self._add_task(number, kind, members, gold_answer, last_place + 1)
        return int(self.fetch_one(query, digest, *task)[0])

    def _add_group(self, digest: str, prompt: str, responses: str, group: Group) -> int:
        """The number of the group, which may be in the store already."""
        extra = json.dumps(group.extra, default=str)
        row = (digest, prompt, responses, group.source, extra, json.dumps(rendering_columns(group)))
        insert = (
            "INSERT INTO groups (digest, prompt, responses, source, extra, rendering) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        )
        try:
            self.db.execute(insert, row)
        except UnicodeEncodeError as error:
            raise DataError(
                f"{group.source} has half of a surrogate pair; leave that row out"
            ) from error
        (number,) = self.fetch_one("SELECT id FROM groups WHERE digest = ?", digest)
        return int(number)

    def _add_task(
        self,
        group: int,
        kind: str,
        members: tuple[int, ...],
        answer: dict[str, Any] | None,
        place: float,
    ) -> None:
        row = (group, kind, json.dumps(members), answer and json.dumps(answer), place)
        replace = "ON CONFLICT DO UPDATE SET place = excluded.place, gold = excluded.gold"
        self.db.execute(f"INSERT INTO tasks VALUES (NULL, ?, ?, ?, ?, ?, 0) {replace}", row)

    def next_task(self, person: int) -> AssignedTask | None:
        """The task to answer next: an open one, at times a gold task, else the first with too few votes."""
        with self.transaction(durable=False):
            query = "SELECT task FROM shown WHERE person = ? AND state = 'open' ORDER BY at DESC"
            row = (
                self.fetch_one(query, person)
                or self._next_gold_task(person)
                or self._next_unfinished_task(person)
            )
            return row and self._show(person, row[0])

    def reopen_task(self, person: int, number: int) -> AssignedTask:
        """The same as `assigned_task`, shown once more."""
        with self.transaction(durable=False):
            return self._show(person, self.assigned_task(person, number).id)

    def _next_gold_task(self, person: int) -> Any:
        """One at a random place in every ``gold_every`` tasks, so that gold tasks cannot be predicted."""
        (num_shown,) = self.fetch_one("SELECT count(*) FROM shown WHERE person = ?", person)
        generator = random.Random(f"{person}:{num_shown // self.gold_every}")
        if num_shown % self.gold_every != generator.randrange(self.gold_every):
            return None
        query = f"SELECT id FROM tasks WHERE gold IS NOT NULL AND NOT EXISTS ({SHOWN_TO}) ORDER BY id LIMIT 1"
        return self.fetch_one(query, person=person)

    def _next_unfinished_task(self, person: int) -> Any:
        """The first task with too few votes, counting those that others are about to give."""
        busy = "SELECT count(*) FROM shown WHERE task = tasks.id AND state = 'open' AND at > :since"
        query = (
            f"SELECT id FROM tasks WHERE gold IS NULL AND taken < :votes AND NOT EXISTS ({SHOWN_TO}) "
            f"AND taken + ({busy}) < :votes ORDER BY place, id LIMIT 1"
        )
        since = time.time() - LEASE
        return self.fetch_one(query, person=person, votes=self.votes, since=since)

    def _show(self, person: int, task: int) -> AssignedTask:
        """Record that the task is shown, with a number of the person's own: a common one would reveal gold tasks."""
        shown_at = time.time()
        number = "SELECT ifnull(max(number), 0) + 1 FROM shown WHERE person = :person"
        refresh = "ON CONFLICT DO UPDATE SET at = excluded.at WHERE state <> 'open' OR at < :since"
        self.db.execute(
            f"INSERT INTO shown VALUES (:task, :person, ({number}), 'open', :now) {refresh}",
            {"task": task, "person": person, "now": shown_at, "since": shown_at - LEASE},
        )
        query = "SELECT number FROM shown WHERE task = ? AND person = ?"
        return self.assigned_task(person, *self.fetch_one(query, task, person))

    def assigned_task(self, person: int, number: int) -> AssignedTask:
        """The ``number``-th task that this person was shown.

        Raises:
            NeverShown: if there is none.
        """
        row = self.fetch_one(TASK_QUERY, person, number)
        if row is None:
            raise NeverShown("you were never shown that task; go on with the next one")
        task, kind, since, revision, verdict, note = row[:6]
        prompt, responses, members, answer = map(json.loads, row[6:])
        generator = random.Random(f"{person}:{task}")  # the same order each time
        order = tuple(generator.sample(members, len(members)))
        return AssignedTask(
            id=task,
            number=number,
            kind=kind,
            prompt=prompt,
            responses=[responses[i] for i in order],
            order=order,
            since=since,
            revision=revision,
            verdict=verdict,
            answer=answer,
            note=note,
        )

    def record_vote(
        self,
        person: int,
        number: int,
        revision: int,
        verdict: str,
        answer: dict[str, Any],
        note: str = "",
    ) -> None:
        """Record an answer for good; sending the same one again changes nothing.

        Args:
            person: who answers.
            number: the task, as the ``number``-th that this person was shown.
            revision: 1 for the first answer to that task, 2 for what replaces it, and so on.
            verdict: ``"vote"``, ``"skip"`` or ``"undo"``.
            answer: the answer, about the responses as shown.
            note: a remark.

        Raises:
            Stale: if another answer was recorded under that revision, or the revision before it is missing.
            Ended: if the campaign takes no more answers.
        """
        content = (verdict, json.dumps(answer, sort_keys=True), note)
        recorded_at = time.time()
        with self.transaction() as db:
            task = self.assigned_task(person, number)
            query = "SELECT verdict, answer, note FROM votes WHERE person = ? AND task = ? AND revision = ?"
            recorded = self.fetch_one(query, person, task.id, revision)
            if recorded == content:
                return
            if self.has_ended:
                raise Ended("the campaign has ended")
            takes_back_nothing = verdict == "undo" and task.verdict in RETRACTED
            if recorded or revision != task.revision or takes_back_nothing:
                raise Stale(
                    "this was answered in another window since; go on from the answer that is recorded"
                )
            # a longer time than the lease is a break, not work
            seconds = min(max(recorded_at - task.since, 0.0), LEASE)
            order = json.dumps(task.order)
            row = (person, task.id, revision, *content[:2], order, note, seconds, recorded_at)
            db.execute("INSERT INTO votes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def recent_answers(self, person: int, limit: int = 100) -> list[OwnAnswer]:
        """This person's answers that stand, newest first."""
        answers = []
        for row in self.db.execute(RECENT_QUERY, (person, limit)):
            number, revision, verdict, note, kind = row[:5]
            prompt, answer = map(json.loads, row[5:])
            answers.append(OwnAnswer(number, revision, verdict, note, kind, prompt, answer))
        return answers

    def progress(self, person: int) -> tuple[int, int, float]:
        """Tasks this person has done, tasks left, and the median seconds of the last twenty.

        The usual number of gold tasks counts as left, so that the sum does not change when one is answered.
        """
        num_done, num_plain = self.fetch_one(DONE_QUERY, person)
        (num_unfinished,) = self.fetch_one(UNFINISHED_QUERY, self.votes)
        (num_own,) = self.fetch_one(OWN_UNFINISHED_QUERY, person, self.votes)
        num_left = num_unfinished - num_own
        (num_gold,) = self.fetch_one("SELECT count(*) FROM tasks WHERE gold IS NOT NULL")
        if num_left:
            all_plain = num_plain + num_left
            expected_gold = min(num_gold, all_plain // (self.gold_every - 1))
            num_left = max(num_left, all_plain + expected_gold - num_done)
        rows = self.db.execute(SECONDS_QUERY, (person,))
        seconds = [value for (value,) in rows]
        return num_done, num_left, median(seconds or [0.0])
