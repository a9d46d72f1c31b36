"""Progress of long work outside of training: a bar on a terminal, a line now and then where nobody watches.

Sampling says how far it is through `note_sampled`; who wants to show that encloses it in `show_answers`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 30.0


class CountedProgress:
    """Shows how much of some work is done.

    Args:
        label: what is done.
        total: how many there are.
    """

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self.done = 0
        self.tokens = 0
        self._bar: Progress | None = None
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> CountedProgress:
        from rich import get_console

        self._start = self._last_line = time.monotonic()
        if get_console().is_terminal:
            self._bar = _make_bar()
            self._bar.add_task(self.label, total=self.total, text="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def add(self, done: int, tokens: int = 0, text: str = "") -> None:
        """Show that more is done.

        Args:
            done: how much more.
            tokens: that were sampled for it.
            text: what else to show; the number of all tokens if left out.
        """
        self.done += done
        self.tokens += tokens
        if self.tokens and not text:
            text = f"{self.tokens:,} tokens"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.done, text=text)
            return
        seconds = time.monotonic()
        if seconds - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = seconds
            parts = [f"{self.done:,} of {self.total:,}", text, f"{seconds - self._start:.0f} s"]
            print(f"{self.label}: {', '.join(part for part in parts if part)}", flush=True)


_shown: list[CountedProgress] = []
"""What shows the answers that are being sampled."""


@contextmanager
def show_answers(label: str, total: int) -> Iterator[CountedProgress]:
    """Show how many answers are sampled inside.

    Args:
        label: whose answers.
        total: how many there will be.
    """
    with CountedProgress(label, total) as progress:
        _shown.append(progress)
        try:
            yield progress
        finally:
            _shown.remove(progress)


def note_sampled(answers: int, tokens: int) -> None:
    """Say that so many more answers have come to their end, and so many more tokens were sampled.

    Args:
        answers: that have come to their end.
        tokens: of all answers.
    """
    for progress in _shown:
        progress.add(answers, tokens)


def track(items: Sequence[Item] | Any, label: str) -> Iterable[Item]:
    """The items one after another, and how many of them are done.

    Args:
        items: with a length.
        label: what is done with them.
    """
    with CountedProgress(label, len(items)) as progress:
        for item in items:
            yield item
            progress.add(1)


def _make_bar() -> Progress:
    """A bar with the time so far and that to come."""
    from rich import get_console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=get_console(),
    )
