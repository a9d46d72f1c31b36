"""Results on disk under the hash of everything that they depend on; a run that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from lit_align._version import __version__
from lit_align.jsonl import json_text
from lit_align.models.atomic_folder import replace_file
from lit_align.models.base_content import base_content
from lit_align.models.load import Base, cache_root

WHOLE_FILE = 64 * 2**20  # bytes up to which a file is hashed as a whole


class Parts:
    """The results of consecutive parts of a task's rows, one file each.

    Args:
        key: the hash of what they depend on.
    """

    def __init__(self, key: str) -> None:
        self.folder = cache_root() / "suite" / key[:32]

    def get(self, number: int) -> list[Any] | None:
        """The results of a part; None if they are not there."""
        try:
            results = json.loads(self._file(number).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return results if isinstance(results, list) else None

    def put(self, number: int, results: Sequence[Any]) -> None:
        """Keep them: as a whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._file(number), json_text(list(results)))

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06}.json"


def content_key(*parts: Any) -> str:
    """A hash of settings, rows and other JSON-able values, and of the version of this package.

    Example:
        >>> content_key("a", {"b": 1}) == content_key("a", {"b": 1}), content_key("a") == content_key("b")
        (True, False)
    """
    text = json.dumps([__version__, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def settings_content(settings: Any, without: tuple[type, ...] = ()) -> list[str]:
    """What a dataclass of settings stands for: its class, its code, its values, and the files that they name.

    Settings that are dataclasses themselves, such as a judge, are followed.

    Args:
        settings: an instance of the class, or any value of a setting.
        without: classes whose instances do not count.
    """
    return list(_content(settings, without))


def _content(value: Any, without: tuple[type, ...]) -> Iterator[str]:
    if isinstance(value, without):
        return
    if isinstance(value, Base):
        yield f"{value} {base_content(value.path, value.revision)}"
    elif is_dataclass(value) and not isinstance(value, type):
        yield f"{type(value).__module__}.{type(value).__qualname__} {_code(type(value))}"
        for each in fields(value):
            yield each.name
            yield from _content(getattr(value, each.name), without)
    elif isinstance(value, dict):
        for name, part in sorted(value.items(), key=str):
            yield str(name)
            yield from _content(part, without)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _content(part, without)
    else:
        yield repr(value)
        if isinstance(value, str):
            yield from _files(value)


def _code(cls: type) -> str:
    """A hash of the file that defines a class: its results are of that code."""
    try:
        return _file_hash(Path(inspect.getfile(cls)))
    except (OSError, TypeError):
        return ""


def _files(text: str) -> Iterator[str]:
    """Hashes of the file or of the folder's files that a setting names; none for other text."""
    if not text or len(text) > 1000 or "\n" in text:
        return
    path = Path(text).expanduser()
    try:
        if path.is_file():
            yield _file_hash(path)
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            yield from (f"{file.relative_to(path)} {_file_hash(file)}" for file in files)
    except OSError:
        return


def _file_hash(path: Path) -> str:
    """Of the content; of a large file its size and the time of its last change."""
    stat = path.stat()
    if stat.st_size > WHOLE_FILE:
        return f"{stat.st_size} {stat.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()
