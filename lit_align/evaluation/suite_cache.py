"""Results on disk under the hash of everything that they depend on; a run that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
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

    Settings that are dataclasses themselves, such as a judge, are followed. Their code is the files of the class and of
    its bases, and what the class names in ``depends_on``. The
    content of files that it writes itself, in settings that it names in ``writes``, does not count.

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
        yield f"{type(value).__module__}.{type(value).__qualname__}"
        yield from _class_files(type(value))
        yield from code_content(getattr(value, "depends_on", ()))
        writes = getattr(value, "writes", ())
        for each in fields(value):
            setting = getattr(value, each.name)
            yield each.name
            yield from [repr(setting)] if each.name in writes else _content(setting, without)
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


def _class_files(cls: type) -> Iterator[str]:
    """Hashes of the files that define a class and its bases: its results are of that code."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] in sys.stdlib_module_names:
            continue
        try:
            yield f"{base.__qualname__} {_file_hash(Path(inspect.getfile(base)))}"
        except (OSError, TypeError):
            yield f"{base.__qualname__} {base.__module__}"  # of a notebook: there is no file


def code_content(names: Iterable[str]) -> list[str]:
    """What code and files stand for: hashes of files and of modules of lit_align, versions of other packages.

    Args:
        names: paths of files, modules, or packages by the name with which they are imported.

    Example:
        >>> code_content(["no_such_package"])
        ['no_such_package is not installed']
    """
    return [_code_of(name) for name in names]


def _code_of(name: str) -> str:
    if Path(name).is_file():
        return f"{Path(name).name} {_file_hash(Path(name))}"
    package = name.partition(".")[0]
    distributions = () if package == "lit_align" else _distributions().get(package, ())
    if distributions:
        return f"{name} {', '.join(map(version, sorted(set(distributions))))}"
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return f"{name} is not installed"
    return f"{name} {_file_hash(Path(spec.origin))}"


@cache
def _distributions() -> Mapping[str, list[str]]:
    """The distributions that install each package."""
    return packages_distributions()


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
