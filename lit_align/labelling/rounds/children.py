"""Commands of ``lit-align`` in processes of their own, which end with the campaign that began them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lit_align.errors import TrainingError

COMMAND = (sys.executable, "-m", "lit_align")


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs beside this process; it is asked to end when the block does."""
    environment = {**os.environ}
    environment.pop("LIT_ALIGN_RUN", None)  # the folder of this campaign
    child = subprocess.Popen([*COMMAND, *arguments], env=environment)
    try:
        yield child
    finally:
        _end(child)


def run_command(*arguments: str) -> None:
    """A command that is waited for.

    Raises:
        TrainingError: if it fails.
    """
    with running(*arguments) as child:
        child.wait()
    if child.returncode:
        raise TrainingError(
            f"lit-align {' '.join(arguments)} ended with {child.returncode}; its own message is above"
        )


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM raises within the block, so that children are ended too."""
    handler = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _leave(number: int, _: Any) -> None:
    sys.exit(128 + number)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Wait for a child that was asked to end; training saves its state first. A second Ctrl-C kills it."""
    with suppress(ProcessLookupError):
        if child.poll() is None:
            child.terminate()
    try:
        child.wait()
    except KeyboardInterrupt:
        child.kill()
        child.wait()
        raise
