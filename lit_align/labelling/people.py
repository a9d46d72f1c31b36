"""Who may come in: annotators and admins, their links, and their sessions."""

from __future__ import annotations

import hashlib
import secrets
import time
from pathlib import Path

from lit_align.labelling.database import Database

ENDED_LINK = "ended "
"""How the token of a person begins whose link was ended: no hash of a token does."""


class People(Database):
    """The people of a store, with a link each.

    Args:
        path: the file.
        session_days: days after which a session is over.
    """

    def __init__(self, path: Path, session_days: float = 30.0) -> None:
        super().__init__(path)
        self.session_seconds = session_days * 86400

    def invite(self, name: str, admin: bool = False) -> str:
        """A new token for a link, which ends access by the old one."""
        token = secrets.token_urlsafe(32)
        self._add_person(name, admin, token, "UPDATE SET token = excluded.token")
        return token

    def invite_once(self, name: str) -> str | None:
        """A token for an annotator's link; None if there is one already, which stays."""
        token = secrets.token_urlsafe(32)
        is_new = self._add_person(
            name, False, token, "UPDATE SET token = excluded.token WHERE token IS NULL"
        )
        return token if is_new else None

    def has_ended_link(self, name: str) -> bool:
        """Whether an admin has ended the link of an annotator, who has no other."""
        query = "SELECT token FROM people WHERE name = ? AND NOT admin"
        row = self.fetch_one(query, name)
        return bool(row and str(row[0]).startswith(ENDED_LINK))

    def _add_person(self, name: str, admin: bool, token: str, resolution: str) -> bool:
        insert = (
            "INSERT INTO people (name, admin, token) VALUES (?, ?, ?) "
            f"ON CONFLICT (name, admin) DO {resolution}"
        )
        with self.transaction() as db:
            return bool(db.execute(insert, (name, admin, hash_secret(token))).rowcount)

    def open_session(self, token: str) -> tuple[str, bool] | None:
        """The secret of a new session, and whether it is an admin's; None if no link has this token."""
        row = self.fetch_one("SELECT id, admin FROM people WHERE token = ?", hash_secret(token))
        if row is None:
            return None
        person, admin = row
        secret = secrets.token_urlsafe(32)
        opened = time.time()
        with self.transaction() as db:
            db.execute("DELETE FROM sessions WHERE opened < ?", (opened - self.session_seconds,))
            db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?)", (hash_secret(secret), person, opened)
            )
        return secret, bool(admin)

    def session_person(self, secret: str, admin: bool = False) -> int | None:
        """The person that a session belongs to; None if there is no such session, or it is over."""
        query = (
            "SELECT id FROM sessions JOIN people ON id = person "
            "WHERE secret = ? AND admin = ? AND opened >= ?"
        )
        oldest = time.time() - self.session_seconds
        row = self.fetch_one(query, hash_secret(secret), admin, oldest)
        return row and int(row[0])

    def is_introduced(self, person: int, introduction: str) -> bool:
        """Whether this person has read the introduction with that digest."""
        query = "SELECT introduced FROM people WHERE id = ?"
        return bool(self.fetch_one(query, person) == (introduction,))

    def set_introduced(self, person: int, introduction: str) -> None:
        """Remember that this person has read it."""
        with self.transaction() as db:
            db.execute("UPDATE people SET introduced = ? WHERE id = ?", (introduction, person))


def hash_secret(secret: str) -> str:
    """The hash that is stored instead of a secret: 256 random bits need no salt."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
