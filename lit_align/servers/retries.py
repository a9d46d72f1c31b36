"""Which failed requests are sent again, and when."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from openai import APIStatusError

RETRYABLE_STATUS = (408, 409, 425, 429)
"""These, and everything from 500: the same request may succeed later."""

MAX_BACKOFF = 30.0
"""Seconds between two attempts, unless the server names a delay."""

MAX_RETRY_AFTER = 300.0
"""The longest delay in seconds that a server may name; after a longer one we give up."""


class Failure(NamedTuple):
    """A failed attempt.

    Args:
        reason: what went wrong.
        delay: seconds to wait before the next attempt, 0 for the usual backoff; None if retrying cannot help.
    """

    reason: str
    delay: float | None = 0.0

    def wait_before(self, attempt: int) -> float:
        """Seconds to wait before the next attempt, with some luck so that requests do not come together.

        Args:
            attempt: how many were made before this one, from 0.
        """
        backoff = min(0.5 * 2**attempt, MAX_BACKOFF)
        return self.delay or backoff * random.uniform(0.75, 1.0)


def is_retryable(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in RETRYABLE_STATUS or status >= 500


def status_failure(error: APIStatusError) -> Failure:
    """The failure of a request that may succeed later, with the delay that the server names."""
    retry_after = error.response.headers.get("retry-after", "")
    is_number = retry_after.isascii() and retry_after.isdecimal()
    delay = float(retry_after) if is_number else 0.0
    return Failure(f"status {error.status_code}", delay if delay <= MAX_RETRY_AFTER else None)


def redirect_target(error: APIStatusError) -> str | None:
    """Where a server sends a request instead of answering it; None if it does not."""
    if not 300 <= error.status_code < 400:
        return None
    return str(error.response.headers.get("location", "an address that it does not name"))


def status_message(error: APIStatusError) -> str:
    """What a server says about a request that it refuses."""
    body: object = error.body
    if isinstance(body, dict):
        return str(body.get("message") or body.get("detail") or error.message)
    return str(error.message)
