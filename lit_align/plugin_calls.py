"""Calls of plugins, whose code may be a stranger's: none may end the run as if it had succeeded, or last for ever."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from lit_align.checks import check_positive
from lit_align.errors import LitAlignError, PluginError
from lit_align.plugin_failures import find_place

Result = TypeVar("Result")

MAY_EXIT = ("lit_align", "lightning", "argparse", "jsonargparse", "__main__")
"""Packages that end the process on purpose: after help or a mistake in the settings, or on a signal."""

EXIT_HELPERS = ("_sitebuiltins",)
"""Where ``exit()`` is."""


class _Limit:
    """Settings of this process, and whether a limited call is under way."""

    seconds: float | None = None
    active: bool = False


class _OutOfTime(BaseException):
    """Raised inside a plugin that takes too long; plugins that catch every Exception do not catch it."""


def set_plugin_timeout(seconds: float | None) -> None:
    """Limit every call of a reward, feedback source or objective in this process.

    Args:
        seconds: that one call may take; None for no limit.

    Raises:
        ValueError: if it is not above 0.
    """
    if seconds is not None:
        check_positive("plugin_timeout", seconds)
    _Limit.seconds = seconds


def call_plugin(plugin: object, function: Callable[..., Result], *args: Any) -> Result:
    """``function(*args)``, which runs the code of ``plugin``.

    Raises:
        PluginError: if the plugin exits the process, raises an interrupt of its own, or takes longer than
            `set_plugin_timeout` allows. Other exceptions, and interrupts that are a user's, pass.

    Example:
        >>> call_plugin("a plugin", max, 1, 2)
        2
    """
    with _watch_signals() as received, _time_limit() as is_limited:
        try:
            return function(*args)
        except _OutOfTime as error:
            if not is_limited:
                raise  # to the call whose limit it is
            raise PluginError(
                f"{plugin} took longer than plugin_timeout, {_Limit.seconds:g} s, for one call; correct it, or raise "
                "plugin_timeout"
            ) from error
        except Exception:
            raise
        except BaseException as error:
            if received:
                raise
            raise PluginError(
                f"{plugin} ended the run by {error!r}; a plugin reports a failure by raising an Exception"
            ) from error


def describe_failure(plugin: object, error: Exception) -> str:
    """A failure in a plugin in words: our own errors say it themselves."""
    if isinstance(error, LitAlignError):
        return str(error)
    place = find_place(error)
    return f"{plugin} failed: {error!r}{f' at {place}' if place else ''}"


def find_foreign_exit(error: SystemExit) -> str | None:
    """Where code of a plugin or of another package ended the process, as ``file:line``; None if it was this program."""
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package not in EXIT_HELPERS:
            place = None if package in MAY_EXIT else f"{frame.f_code.co_filename}:{line}"
    return place


@contextmanager
def _watch_signals() -> Iterator[list[int]]:
    """Note signals that arrive: what their handlers raise is no doing of the plugin."""
    received: list[int] = []
    handlers: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, _noting(handler, received))
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            if not received:  # a handler may have put another one in its place
                signal.signal(number, handler)


def _noting(
    handler: Callable[[int, FrameType | None], Any], received: list[int]
) -> Callable[[int, FrameType | None], None]:
    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, handler)
        handler(number, frame)

    return note


@contextmanager
def keep_time_limit() -> Iterator[None]:
    """Set the limit of the call under way again after code that sets and clears the process's alarm itself.

    Within that code the limit does not end anything; what has passed of it counts.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not (_Limit.active and is_main):
        yield
        return
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    start = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 1e-6))


@contextmanager
def _time_limit() -> Iterator[bool]:
    """Raise `_OutOfTime` in this thread after the limit; False within a limited call, which has the limit already."""
    is_main = threading.current_thread() is threading.main_thread()
    if _Limit.seconds is None or _Limit.active or not is_main:
        yield False
        return
    handler = signal.signal(signal.SIGALRM, _raise_out_of_time)
    _Limit.active = True
    signal.setitimer(signal.ITIMER_REAL, _Limit.seconds)
    try:
        yield True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _Limit.active = False
        signal.signal(signal.SIGALRM, handler)


def _raise_out_of_time(number: int, frame: FrameType | None) -> None:
    raise _OutOfTime
