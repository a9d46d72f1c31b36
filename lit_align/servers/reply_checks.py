"""Whether what a server states can be true; it may send anything."""

from __future__ import annotations

import math
from typing import Any

MAX_TOKENS_COUNTED = 10**9
LOGP_TOLERANCE = 1e-3  # rounding may put a certain token a little above 0


class UnreadableReply(Exception):
    """The reply is no chat completion, or what it states cannot be true.

    Args:
        reason: in a few words.
        retryable: whether the same request may get another reply; a complete answer was paid for and would only come
            again.
    """

    def __init__(self, reason: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.retryable = retryable


def is_count(value: Any) -> bool:
    """Whether it can be a number of tokens."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and 0 <= value <= MAX_TOKENS_COUNTED


def is_logp(value: Any) -> bool:
    """Whether it can be a log-probability."""
    is_number = isinstance(value, int | float) and not math.isnan(value)
    return is_number and value <= LOGP_TOLERANCE
