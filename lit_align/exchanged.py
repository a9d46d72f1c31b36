"""What processes send each other: plain data, as bytes."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from lit_align.errors import PluginError


def to_bytes(value: Any) -> bytes:
    """A value as bytes, from which another process can make it again.

    Raises:
        PluginError: naming what in it cannot be sent.

    Example:
        >>> to_bytes([{"length": len}, {"check": lambda text: True}])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lit_align.errors.PluginError: [1]['check'] of what a process has computed is a function, which cannot ...
    """
    try:
        return _tried_bytes(value)
    except Exception as error:  # of a class's own methods, too
        place, culprit = _culprit(value)
        raise PluginError(
            f"{place or 'all'} of what a process has computed is a {type(culprit).__name__}, which cannot be sent to "
            f"the other processes ({error}); return numbers, texts and tensors, or run on one process"
        ) from error


def from_bytes(data: bytes) -> Any:
    """The value that `to_bytes` was given.

    Example:
        >>> from_bytes(to_bytes([1, "a"]))
        [1, 'a']
    """
    return pickle.loads(data)


def _tried_bytes(value: Any) -> bytes:
    """A value as bytes that have been read once: what only the others failed to read would leave this one waiting."""
    data = pickle.dumps(value)
    from_bytes(data)
    return data


def _can_be_sent(value: Any) -> bool:
    try:
        _tried_bytes(value)
    except Exception:
        return False
    return True


def _culprit(value: Any) -> tuple[str, Any]:
    """The innermost part of a value that cannot be sent, and where it is, as in ``[0].extra['check']``."""
    for place, part in _parts(value):
        if not _can_be_sent(part):
            inner, culprit = _culprit(part)
            return place + inner, culprit
    return "", value


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", part) for key, part in value.items()]
    if hasattr(value, "_fields"):
        return [(f".{name}", getattr(value, name)) for name in value._fields]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if is_dataclass(value):
        return [(f".{field.name}", getattr(value, field.name)) for field in fields(value)]
    return ()
