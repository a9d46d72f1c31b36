"""The SQLite file of a campaign: a connection for each thread, and writes that wait for each other."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lit_align.errors import ConfigError

SCHEMA = Path(__file__).with_name("schema.sql")
LATER_COLUMNS = (
    ("sessions", "opened", "REAL DEFAULT 0"),  # sessions without a time are over
    ("groups", "rendering", "TEXT DEFAULT '{}'"),
    ("people", "introduced", "TEXT DEFAULT ''"),
)
"""Columns that files of earlier versions lack: table, name and definition."""
LATER_TABLES = ("state",)
"""Tables that they lack."""


class Database:
    """A file with the tables of ``schema.sql``; it is made if there is none.

    Args:
        path: the file.

    Raises:
        ConfigError: if the file is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = threading.local()
        # threads of this process queue here: at SQLite's own lock they would sleep and try again
        self._writing = threading.Lock()
        try:
            _check_is_store(path)
            # at once: a part of a schema is no store
            self.db.executescript(f"BEGIN IMMEDIATE; {SCHEMA.read_text('utf-8')} COMMIT")
            self._add_later_columns()
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
        connection: sqlite3.Connection = self._threads.db
        return connection

    def fetch_one(self, query: str, *values: Any, **named: Any) -> Any:
        """The first row of the result; None if there is none."""
        return self.db.execute(query, named or values).fetchone()

    def get_state(self, name: str) -> Any:
        """What is stored about the campaign itself under that name; None if nothing is."""
        row = self.fetch_one("SELECT value FROM state WHERE name = ?", name)
        return row and json.loads(row[0])

    def set_state(self, name: str, value: Any) -> None:
        """Store something about the campaign itself; None is stored as nothing."""
        with self.transaction() as db:
            db.execute("DELETE FROM state WHERE name = ?", (name,))
            if value is not None:
                db.execute("INSERT INTO state VALUES (?, ?)", (name, json.dumps(value)))

    @contextmanager
    def transaction(self, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """Write all or nothing; synced to disk at the end if ``durable``, else a power cut may lose it."""
        with self._writing:
            self.db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")

    def _add_later_columns(self) -> None:
        """Bring a file of an earlier version up to date."""
        for table, column, definition in LATER_COLUMNS:
            columns = [row[1] for row in self.db.execute(f"PRAGMA table_info({table})")]
            if column not in columns:
                self.db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {definition}")


def _check_is_store(path: Path) -> None:
    """Refuse the database of something else, before anything is written to it.

    Raises:
        ConfigError: if it has tables, and not those of a store.
    """
    if not path.is_file():
        return
    address = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=30)) as db:
        tables = _columns_by_table(db)
    if not tables:
        return
    with closing(sqlite3.connect(":memory:")) as empty_store:
        empty_store.executescript(SCHEMA.read_text("utf-8"))
        expected = _columns_by_table(empty_store)
    for table in LATER_TABLES:
        del expected[table]
    for table, column, _ in LATER_COLUMNS:
        expected[table].remove(column)
    if any(not columns <= tables.get(table, set()) for table, columns in expected.items()):
        raise ConfigError(
            f"{path} cannot be used as a store: it is a database of something else; name another file"
        )


def _columns_by_table(db: sqlite3.Connection) -> dict[str, set[str]]:
    """The names of the columns of each table."""
    query = (
        "SELECT tables.name, columns.name FROM sqlite_master tables, "
        "pragma_table_info(tables.name) columns WHERE tables.type = 'table'"
    )
    columns: dict[str, set[str]] = {}
    for table, column in db.execute(query):
        columns.setdefault(table, set()).add(column)
    return columns
