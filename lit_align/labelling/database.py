"""The SQLite file of a campaign: a connection for each thread, and writes that wait for each other."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_align.errors import ConfigError

SCHEMA = Path(__file__).with_name("schema.sql")


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
            self.db.executescript(SCHEMA.read_text("utf-8"))
            self._add_session_times()
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

    def _add_session_times(self) -> None:
        """Bring a file of an earlier version up to date: its sessions have no time, and are over."""
        columns = [row[1] for row in self.db.execute("PRAGMA table_info(sessions)")]
        if "opened" not in columns:
            self.db.execute("ALTER TABLE sessions ADD COLUMN opened REAL DEFAULT 0")
