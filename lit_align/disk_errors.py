"""Errors that mean that the disk refuses: it is full, over quota, read-only or broken."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

DISK_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
}


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """An error, then the one that it was raised from or while handling, and so on; ``from None`` ends the chain.

    Example:
        >>> try:
        ...     try:
        ...         raise OSError(28, "No space left on device")
        ...     except OSError:
        ...         raise ValueError("no number") from None
        ... except ValueError as error:
        ...     len(list(error_chain(error)))
        1
    """
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        context = None if cause.__suppress_context__ else cause.__context__
        cause = cause.__cause__ or context


def disk_error(error: BaseException) -> str | None:
    """The system's words if an error is that the disk refuses, or came from that; None for every other error.

    Libraries raise errors of their own while they close a file that could not be written, and safetensors names the
    system's number in its text alone.

    Example:
        >>> disk_error(OSError(28, "No space left on device"))
        'No space left on device'
        >>> disk_error(RuntimeError("I/O error: something (os error 30)"))
        'Read-only file system'
        >>> disk_error(ConnectionResetError(104, "Connection reset by peer"))
    """
    for cause in error_chain(error):
        number = cause.errno if isinstance(cause, OSError) else _number_in_text(cause)
        if number in DISK_ERRORS:
            return os.strerror(number)
    return None


def _number_in_text(error: BaseException) -> int | None:
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match.group(1)) if match else None
