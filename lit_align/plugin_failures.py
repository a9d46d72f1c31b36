"""Where an exception comes from: the line of a plugin or of another file of the user that raised it, or led to it."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from lit_align.installed_plugins import installed_plugins

VARIABLE = "LIT_ALIGN_TRACEBACK"
"""Environment variable that shows whole tracebacks."""

OWN_FOLDER = Path(__file__).parent
LIBRARIES = tuple(
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
LIBRARY_FOLDERS = {"site-packages", "dist-packages"}
"""Where pip and Debian install, for all users or for one."""

DEPENDENCIES = {
    *("accelerate", "bitsandbytes", "datasets", "huggingface_hub", "jsonargparse", "lightning"),
    *("numpy", "peft", "pluggy", "pyarrow", "safetensors", "tokenizers", "torch", "torchmetrics"),
    "transformers",
}
"""Packages that lit_align works with; they may be installed in any folder, from a checkout for example."""


class Place(NamedTuple):
    """The innermost line of a user's code on the way to an exception.

    Args:
        path: of the file.
        line: in it, counted from 1.
        owner: name of the class or function that the line is in; empty at the level of the module.
    """

    path: str
    line: int
    owner: str

    def __str__(self) -> str:
        folder = Path.cwd()
        path = Path(self.path)
        shown = path.relative_to(folder) if path.is_relative_to(folder) else path
        return f"{shown}:{self.line}"


def find_place(error: BaseException) -> Place | None:
    """The place of an exception in code of a plugin or of the user; None if there is no such line.

    The exceptions that it was made of are looked through too.

    Example:
        >>> find_place(ValueError("raised nowhere")) is None
        True
    """
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, SyntaxError) and _is_users(current.filename or "", ""):
            return Place(str(current.filename), current.lineno or 0, "")
        frames = list(traceback.walk_tb(current.__traceback__))
        for frame, line in reversed(frames):
            path = frame.f_code.co_filename
            if _is_users(path, str(frame.f_globals.get("__name__"))):
                return Place(path, line, _owner(frame))
        current = current.__cause__ or current.__context__
    return None


def describe_exception(error: BaseException) -> str:
    """An exception in one line, as Python ends a traceback.

    Example:
        >>> describe_exception(KeyError("oops"))
        "KeyError: 'oops'"
    """
    return " ".join(traceback.format_exception_only(error)[-1].split())


def origin(error: BaseException, place: Place) -> BaseException:
    """The exception that was raised at a place, among those that ``error`` was made of."""
    current: BaseException | None = error
    while current is not None:
        lines = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(current.__traceback__)
        ]
        if (place.path, place.line) in lines or isinstance(current, SyntaxError):
            return current
        current = current.__cause__ or current.__context__
    return error


def shows_tracebacks() -> bool:
    """Whether the user wants whole tracebacks."""
    return bool(os.environ.get(VARIABLE))


def _is_users(path: str, module: str) -> bool:
    """Whether a file is neither lit_align's nor of Python or a library, unless the library is a plugin."""
    file = Path(path)
    if module == "__main__" or not file.is_file() or file.is_relative_to(OWN_FOLDER):
        return False
    resolved = file.resolve()
    package = module.partition(".")[0]
    is_library = not LIBRARY_FOLDERS.isdisjoint(resolved.parts) or package in DEPENDENCIES
    if not is_library and not any(resolved.is_relative_to(folder) for folder in LIBRARIES):
        return True
    plugins = {plugin.entry_point.module.partition(".")[0] for plugin in installed_plugins()}
    return package in plugins


def _owner(frame: FrameType) -> str:
    owner = frame.f_locals.get("self")
    if owner is not None:
        return type(owner).__name__
    name = frame.f_code.co_name
    return "" if name.startswith("<") else name
