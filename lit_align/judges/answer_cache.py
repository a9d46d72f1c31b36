"""Answers of a judge server, cached in an SQLite file."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from threading import Lock
from typing import NamedTuple


class ServerAnswer(NamedTuple):
    """An answer of the server, as it is cached.

    Args:
        text: the generated text.
        top_logprobs: the most probable first tokens with their log-probabilities; None if the server gave none.
        tokens: numbers of prompt and completion tokens.
        seconds: duration of the last attempt.
        attempts: attempts made.
        truncated: whether max_tokens ended it.
    """

    text: str
    top_logprobs: list[tuple[str, float]] | None
    tokens: tuple[int, int]
    seconds: float = 0.0
    attempts: int = 0
    truncated: bool = False


class AnswerCache:
    """SQLite file of answers by request; an answer is written as a whole or not at all, even if the process dies."""

    def __init__(self, path: str | None) -> None:
        file = Path(path).expanduser() if path else None
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
        self.lock = Lock()
        self.database = sqlite3.connect(
            file or ":memory:", timeout=60, check_same_thread=False, isolation_level=None
        )
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS answers (name TEXT PRIMARY KEY, said TEXT NOT NULL)"
        )

    def get(self, key: str) -> ServerAnswer | None:
        query = "SELECT said FROM answers WHERE name = ?"
        with self.lock:
            row = self.database.execute(query, (key,)).fetchone()
        return None if row is None else ServerAnswer(*json.loads(row[0]))

    def put(self, key: str, answer: ServerAnswer) -> None:
        statement = "INSERT OR REPLACE INTO answers VALUES (?, ?)"
        with self.lock:
            self.database.execute(statement, (key, json.dumps(answer)))
