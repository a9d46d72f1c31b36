"""Calls in parallel that a process which ends does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_SECONDS = 0.2


class Job(Generic[Item, Result]):
    """A function called for every item in threads; they are daemons, so that no server can keep a process alive.

    Args:
        function: to call.
        items: its arguments.
        num_threads: calls at a time, at most.
    """

    def __init__(
        self, function: Callable[[Item], Result], items: Sequence[Item], num_threads: int = 1
    ) -> None:
        self._function, self._items = function, items
        self._results: dict[int, Result] = {}
        self._error: BaseException | None = None
        self._numbers = iter(range(len(items)))
        self._lock, self._changed = threading.Lock(), threading.Event()
        for _ in range(min(num_threads, len(items))):
            threading.Thread(target=self._work, daemon=True, name="job").start()

    @property
    def is_done(self) -> bool:
        """Whether all calls have returned, or one has failed."""
        return self._error is not None or len(self._results) == len(self._items)

    def wait(self, poll: Callable[[], None] = lambda: None) -> list[Result]:
        """The results in the order of the items.

        Args:
            poll: called now and then while it waits; what it raises ends the waiting.

        Raises:
            BaseException: what the first call that failed has raised; no further items are then begun.
        """
        while not self.is_done:
            poll()
            self._changed.wait(POLL_SECONDS)
            self._changed.clear()
        if self._error is not None:
            raise self._error
        return [self._results[number] for number in range(len(self._items))]

    def _next(self) -> int | None:
        with self._lock:
            return None if self._error is not None else next(self._numbers, None)

    def _work(self) -> None:
        try:
            while (number := self._next()) is not None:
                self._results[number] = self._function(self._items[number])
        except BaseException as error:  # it belongs to who waits
            self._error = error
        finally:
            self._changed.set()
