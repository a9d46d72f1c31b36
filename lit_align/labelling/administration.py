"""What an admin does to a campaign: end it, add tasks, remove the votes of an annotator, and back the store up."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from lit_align.errors import ConfigError
from lit_align.labelling.people import ENDED_LINK
from lit_align.labelling.store import Store
from lit_align.labelling.votes import (
    RETRACTED,
    TASK_KINDS,
    check_store_exists,
    content_key,
    read_votes,
)
from lit_align.types import Group

STANDING_QUERY = (
    f"SELECT task, revision, shown FROM latest WHERE person = ? AND verdict NOT IN {RETRACTED}"
)
COPY_EXISTS = "is there already; name a file that is not"


class AddedTasks(NamedTuple):
    """What became of groups that were added to a running campaign.

    Args:
        num_tasks: tasks that were added.
        num_duplicates: groups that were asked about already, or stood in the file twice.
    """

    num_tasks: int
    num_duplicates: int


def end_campaign(store: Store) -> None:
    """Take no more answers; everything can still be read and exported."""
    store.set_state("ended", time.time())


def reopen_campaign(store: Store) -> None:
    """Take answers again."""
    store.set_state("ended", None)


def add_new_tasks(store: Store, groups: Sequence[Group], kind: str) -> AddedTasks:
    """Add the tasks of the groups that are not asked about yet, after all others.

    A group is known by its prompt and its responses in any order.
    """
    data = read_votes(store.path)
    known = set()
    for task in data.tasks.values():
        if task.kind == kind and task.gold is None:
            known.add(content_key(data.groups[task.group]))
    new_groups = []
    for group in groups:
        key = content_key(group)
        if key not in known:
            known.add(key)
            new_groups.append(group)
    (last_place,) = store.fetch_one("SELECT ifnull(max(place), -1) FROM tasks")
    num_tasks = store.add_tasks(new_groups, kind, first_place=last_place + 1)
    return AddedTasks(num_tasks, len(groups) - len(new_groups))


def describe_added(tasks: AddedTasks) -> str:
    """What became of groups that were added, in a sentence."""
    sentence = f"{tasks.num_tasks} tasks added"
    if tasks.num_duplicates:
        sentence += f"; {tasks.num_duplicates} rows are asked about already and were left out"
    return f"{sentence}."


def task_kind(store: Store) -> str:
    """How the tasks of the store are answered.

    Raises:
        ConfigError: if there is none, or there are several kinds.
    """
    kinds = _task_kinds(store)
    if len(kinds) != 1:
        raise ConfigError(
            f"{store.path} has {' and '.join(kinds) or 'no'} tasks; say with --ask how to answer these"
        )
    return kinds[0]


def choose_kind(store: Store, ask: str | None) -> str:
    """How tasks that the page adds are answered.

    Args:
        store: where they are added.
        ask: how, by the settings; None as the others, and those of a new store by comparing.

    Raises:
        ConfigError: if the others are answered in another way, or in several and the settings do not say.
    """
    kinds = _task_kinds(store)
    if kinds and ask is None:
        return task_kind(store)
    if len(kinds) == 1 and ask != kinds[0]:
        raise ConfigError(
            f"ask is {ask!r}, but {store.path} has {kinds[0]} tasks; leave ask out, or name another store"
        )
    return ask or TASK_KINDS[0]


def _task_kinds(store: Store) -> list[str]:
    rows = store.db.execute("SELECT DISTINCT kind FROM tasks ORDER BY kind")
    return [str(kind) for (kind,) in rows]


def remove_votes(store: Store, name: str) -> int:
    """Take all answers of an annotator back and end the link; return how many answers that were.

    Each gets a further revision with the verdict ``"removed"``: the history still has what was answered. Its tasks go
    to others, or to the same annotator by a new link.

    Raises:
        ConfigError: if there is no such annotator.
    """
    removed_at = time.time()
    with store.transaction() as db:
        row = store.fetch_one("SELECT id FROM people WHERE name = ? AND NOT admin", name)
        if row is None:
            raise ConfigError(f"{store.path} has no annotator {name!r}; correct the name")
        (person,) = row
        answers = db.execute(STANDING_QUERY, (person,)).fetchall()
        insert = "INSERT INTO votes VALUES (NULL, ?, ?, ?, 'removed', '{}', ?, '', 0, ?)"
        for task, revision, shown in answers:
            db.execute(insert, (person, task, revision + 1, shown, removed_at))
        # nobody waits for the annotator to answer what is open
        db.execute("UPDATE shown SET at = 0 WHERE person = ? AND state = 'open'", (person,))
        no_token = f"{ENDED_LINK}{secrets.token_hex(32)}"  # tokens are unique
        db.execute("UPDATE people SET token = ? WHERE id = ?", (no_token, person))
    return len(answers)


def back_up(store: str | Path, copy: str | Path) -> int:
    """Copy a store that may be in use, with every vote that was acknowledged before; return how many answers it has.

    SQLite's own backup reads one moment of the file and of its log ``-wal``, which a copied file lacks.

    Raises:
        ConfigError: if the store cannot be read, or the copy cannot be written or is there already.
    """
    store, copy = Path(store), Path(copy)
    check_store_exists(store)
    if copy.exists():
        raise ConfigError(f"{copy} {COPY_EXISTS}")
    try:
        with TemporaryDirectory(
            prefix=f".{copy.name}.", dir=copy.parent, ignore_cleanup_errors=True
        ) as folder:
            unfinished = Path(folder, copy.name)
            num_answers = _copy_database(store, unfinished)
            copy.touch(exist_ok=False)  # nobody else's from here on
            unfinished.replace(copy)
    except FileExistsError as error:
        raise ConfigError(f"{copy} {COPY_EXISTS}") from error
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(
            f"{store} cannot be backed up to {copy}: {error}; name a store, and a file in a folder that exists"
        ) from error
    return num_answers


def _copy_database(store: Path, copy: Path) -> int:
    """Write a store as it is at one moment to a single file; return how many answers it has."""
    source = sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
    with closing(source), closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # without a log beside it
        (num_answers,) = target.execute("SELECT count(*) FROM votes").fetchone()
    return int(num_answers)
