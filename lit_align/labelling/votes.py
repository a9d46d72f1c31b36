"""The votes of a campaign as the store holds them: tasks, every answer ever given, and which of them count.

* *A vote* counts until its author changes it or takes it back; the history has all of them.
* *A skip*, an answer that was taken back, or a task that was shown and not answered counts for nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from lit_align.errors import ConfigError, DataError
from lit_align.types import Group

TASK_KINDS = ("compare", "rank", "rate", "thumbs")
RETRACTED = ("undo", "removed")
"""Verdicts of a revision that takes an answer back, by its author or by an admin."""
ContentKey = tuple[str, ...]
"""What identifies a group by its content: the prompt, and its responses in any order."""

GROUPS_QUERY = "SELECT * FROM groups ORDER BY id"
TASKS_QUERY = "SELECT id, kind, grp, members, gold FROM tasks ORDER BY id"
VOTES_QUERY = (
    "SELECT name, task, revision, verdict, answer, shown, note, seconds, at FROM votes JOIN people "
    "ON people.id = person ORDER BY votes.id"
)


class Task(NamedTuple):
    """A task of a campaign.

    Args:
        kind: how it is answered, one of `TASK_KINDS`.
        group: number of its group.
        members: the responses of the group that it is about, by index.
        gold: the known answer if it is a gold task, else None.
    """

    kind: str
    group: int
    members: tuple[int, ...]
    gold: dict[str, Any] | None


class Vote(NamedTuple):
    """An answer as the store holds it.

    Args:
        annotator: name of who answered.
        task: number of the task.
        revision: 1 for the first answer to the task, 2 for what replaces it, and so on.
        verdict: ``"vote"``, ``"skip"``, ``"undo"`` or ``"removed"``, the last by an admin.
        answer: ``preference``, from -3 (the first shown is much better) to 3, with ``graded`` false if only its sign
            was asked; or ``places`` of the responses as shown; or ``rating`` with ``flags``, each true or false; or
            ``up``.
        shown: index of each response, in the order in which they were shown.
        note: a remark.
        seconds: time from showing the task to the answer.
        at: time of the answer, in seconds since 1970.
    """

    annotator: str
    task: int
    revision: int
    verdict: str
    answer: dict[str, Any]
    shown: tuple[int, ...]
    note: str = ""
    seconds: float = 0.0
    at: float = 0.0


class CampaignVotes(NamedTuple):
    """All that a store holds except who has access.

    Args:
        groups: groups by number.
        tasks: tasks by number.
        history: every answer ever given, oldest first.
    """

    groups: dict[int, Group]
    tasks: dict[int, Task]
    history: list[Vote]

    @property
    def latest(self) -> list[Vote]:
        """The last answer of each annotator to each task."""
        latest = {}
        for vote in self.history:
            latest[vote.annotator, vote.task] = vote
        return list(latest.values())

    @property
    def votes(self) -> list[Vote]:
        """The answers that count."""
        return [vote for vote in self.latest if vote.verdict == "vote"]


def check_store_exists(path: str | Path) -> None:
    """Refuse the name of a file that is not there.

    Raises:
        ConfigError: naming it.
    """
    if not Path(path).is_file():
        raise ConfigError(f"there is no store {path}; name the file of lit-align label")


def read_flags(store: str | Path) -> dict[str, str] | None:
    """The words of the problems that a rated response may have, as the page had them; None if it never said."""
    address = f"{Path(store).resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as db:
            row = db.execute("SELECT value FROM state WHERE name = 'flags'").fetchone()
    except sqlite3.Error:  # files of earlier versions have no such table
        return None
    return dict(json.loads(row[0])) if row else None


def read_votes(store: str | Path) -> CampaignVotes:
    """Everything in the file, which may be in use.

    Raises:
        DataError: if it is no store.
    """
    address = f"{Path(store).resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as db:
            db.row_factory = sqlite3.Row
            db.execute("BEGIN")  # one snapshot for all three
            group_rows = db.execute(GROUPS_QUERY).fetchall()
            task_rows = db.execute(TASKS_QUERY).fetchall()
            vote_rows = db.execute(VOTES_QUERY).fetchall()
    except sqlite3.Error as error:
        raise DataError(
            f"{store} is not a store of votes: {error}; name the file of lit-align label"
        ) from error
    return CampaignVotes(
        groups={row["id"]: _to_group(row) for row in group_rows},
        tasks={row["id"]: _to_task(row) for row in task_rows},
        history=[_to_vote(row) for row in vote_rows],
    )


def _to_group(row: sqlite3.Row) -> Group:
    # files of earlier versions lack the column
    rendering = json.loads(row["rendering"]) if "rendering" in row.keys() else {}  # noqa: SIM118
    return Group(
        prompt=json.loads(row["prompt"]),
        responses=json.loads(row["responses"]),
        source=row["source"],
        extra=json.loads(row["extra"]),
        tools=tuple(rendering.get("tools", ())),
        template_kwargs=rendering.get("chat_template_kwargs", {}),
        continues=rendering.get("continues", False),
    )


def _to_task(row: sqlite3.Row) -> Task:
    return Task(
        kind=row["kind"],
        group=row["grp"],
        members=tuple(json.loads(row["members"])),
        gold=json.loads(row["gold"]) if row["gold"] else None,
    )


def _to_vote(row: sqlite3.Row) -> Vote:
    vote = Vote(*row)
    shown = json.loads(row["shown"])
    return vote._replace(answer=json.loads(row["answer"]), shown=tuple(shown))


def answer_values(
    kind: str, answer: dict[str, Any], shown: Sequence[int]
) -> dict[tuple[int, int], int]:
    """Labels in an answer, by index of the two responses that they compare, the smaller first.

    The value is 1, -1 or 0 where the first, the second or neither is better. A rating, and 1 or 0 for good or bad, are
    under the index of the response twice.

    Example:
        >>> answer_values("compare", {"preference": 3}, (1, 0))  # the second shown, which is the first of the group
        {(0, 1): 1}
    """
    first = shown[0]
    if kind == "rate":
        return {(first, first): answer["rating"]}
    if kind == "thumbs":
        return {(first, first): int(answer["up"])}
    # of two, the first shown is better if the preference is negative
    places = answer["places"] if kind == "rank" else [answer["preference"], 0]
    place_of = dict(zip(shown, places, strict=True))
    values = {}
    for i, j in combinations(sorted(place_of), 2):
        difference = place_of[j] - place_of[i]
        values[i, j] = (difference > 0) - (difference < 0)
    return values


def content_key(group: Group) -> ContentKey:
    """Prompt and responses of the group as a key that ignores the order of the responses."""
    responses = sorted(map(json.dumps, group.responses))
    return json.dumps(group.prompt), *responses


class _Merged(NamedTuple):
    """Where a group went: the number of the first group of the same content, and the new index of each response."""

    number: int
    indices: list[int]

    def map(self, responses: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.indices[i] for i in responses)


def merge_equal_groups(data: CampaignVotes) -> tuple[CampaignVotes, dict[int, ContentKey]]:
    """The same votes with one group for all rows of equal content, and the content of every group by number."""
    keys: dict[int, ContentKey] = {}
    first_numbers: dict[ContentKey, int] = {}
    merged: dict[int, _Merged] = {}
    for number, group in data.groups.items():
        key = content_key(group)
        first_number = first_numbers.setdefault(key, number)
        responses = data.groups[first_number].responses
        indices = [responses.index(response) for response in group.responses]
        keys[number] = key
        merged[number] = _Merged(first_number, indices)

    tasks = {}
    for number, task in data.tasks.items():
        target = merged[task.group]
        tasks[number] = task._replace(group=target.number, members=target.map(task.members))
    history = []
    for vote in data.history:
        task = data.tasks[vote.task]
        shown = merged[task.group].map(vote.shown)
        history.append(vote._replace(shown=shown))
    return data._replace(tasks=tasks, history=history), keys
