r"""Read and write JSON Lines and JSON files; every file the package writes goes through here.

Files are UTF-8 with ``\n`` line ends. Values without a JSON type, such as dates from Parquet, are written as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

MAX_DEPTH = 100
"""Lists and objects within each other that are read from data."""

TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def to_line(row: Any, *, ascii_only: bool = False) -> str:
    r"""One row as a line of JSON, its line end included.

    Args:
        row: dict, list or plain value.
        ascii_only: write other characters as ``\u`` escapes.

    Example:
        >>> to_line({"answer": "é"}), to_line({"answer": "é"}, ascii_only=True)
        ('{"answer": "é"}\n', '{"answer": "\\u00e9"}\n')
    """
    return json.dumps(row, ensure_ascii=ascii_only, default=str) + "\n"


def write_rows(file: TextIO, rows: Iterable[Any], *, ascii_only: bool = False) -> None:
    """Write rows to an open file, one a line."""
    for row in rows:
        file.write(to_line(row, ascii_only=ascii_only))


def write_jsonl(path: Path, rows: Iterable[Any], *, ascii_only: bool = False) -> None:
    """Write a JSON Lines file, replacing the one that is there."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        write_rows(file, rows, ascii_only=ascii_only)


def append_jsonl(path: Path, rows: Iterable[Any], *, ascii_only: bool = False) -> None:
    """Add rows at the end of a JSON Lines file, which is created if missing."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        write_rows(file, rows, ascii_only=ascii_only)


def read_jsonl(path: Path) -> list[Any]:
    r"""All rows of a JSON Lines file that this package wrote; blank lines are skipped.

    Lines end at ``\n`` alone: text in a row may hold other line separators, such as U+2028.

    Raises:
        ValueError: if a line is not JSON.
    """
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file if line.strip()]


def read_jsonl_so_far(path: Path, last: int | None = None) -> list[Any]:
    """The rows of a file that is still written, or whose process was killed; none without a file.

    Args:
        path: of the file; a line that is no JSON, as one that is written in part, is left out.
        last: how many of the last lines to read; all if left out.
    """
    if not path.is_file():
        return []
    lines = [line for line in path.read_text("utf-8").split("\n") if line.strip()]
    rows = []
    for line in lines if last is None else lines[-last:]:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def write_json(path: Path, value: Any, *, ascii_only: bool = False) -> None:
    """Write one value, indented and with a line end."""
    path.write_text(json_text(value, ascii_only=ascii_only), encoding="utf-8", newline="\n")


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    r"""What `write_json` writes.

    Example:
        >>> json_text([1])
        '[\n  1\n]\n'
    """
    return json.dumps(value, indent=2, ensure_ascii=ascii_only, default=str) + "\n"


def parse_json(text: str) -> Any:
    """The value of a JSON text from elsewhere.

    Raises:
        ValueError: if it is not JSON, or nested deeper than `MAX_DEPTH`.

    Example:
        >>> parse_json("[" * 200 + "]" * 200)
        Traceback (most recent call last):
        ValueError: nested deeper than 100 levels
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if is_too_deep(value):
        raise ValueError(TOO_DEEP)
    return value


def is_too_deep(value: Any) -> bool:
    """Whether lists and objects within each other are more than `MAX_DEPTH`; what walks through them may call itself.

    Example:
        >>> is_too_deep([[{"a": []}]])
        False
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            values = item.values() if isinstance(item, dict) else item
            below += [inner for inner in values if isinstance(inner, dict | list)]
        if not below:
            return False
        level = below
    return True


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text("utf-8"))
