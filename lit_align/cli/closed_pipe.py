"""Output whose reader has gone, as in ``lit-align fit --help | head``."""

from __future__ import annotations

import os
import select
import sys
import traceback
from typing import TextIO

READER_GONE = 128 + 13
"""The exit status of programs that SIGPIPE ends."""


def reader_is_gone(error: BaseException) -> bool:
    """Whether an exception comes of printing to a pipe that nobody reads any more.

    Args:
        error: such as a BrokenPipeError, or rich's SystemExit after one.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, BrokenPipeError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return False
    if isinstance(error, SystemExit) and _is_raised_by_rich(error):  # which has closed the pipe
        return True
    return any(_is_broken(stream.fileno()) for stream in _streams())


def _is_raised_by_rich(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith("rich.")


def leave_quietly() -> None:
    """Exit as programs do that SIGPIPE ends.

    Raises:
        SystemExit: with their status.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in _streams():  # for what Python flushes last
        if _is_broken(stream.fileno()):
            os.dup2(nowhere, stream.fileno())
    sys.exit(READER_GONE)


def _streams() -> list[TextIO]:
    return [stream for stream in (sys.__stdout__, sys.__stderr__) if stream is not None]


def _is_broken(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors alone
    return any(event & select.POLLERR for _, event in poll.poll(0))
