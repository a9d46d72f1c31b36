"""Read the rows of a file or of a hub data set, each with its place; unreadable rows are yielded as Malformed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lit_align.data.csv_reader import read_csv
from lit_align.data.file_bytes import guess_encoding, not_utf8, open_file
from lit_align.data.formats import Row
from lit_align.data.formats.base import LocatedRow
from lit_align.data.hub_reader import is_hub_name, read_hub
from lit_align.data.json_container import (
    is_only_rows,
    object_members,
    rows_member,
    skip_blanks,
)
from lit_align.errors import DataError, Malformed
from lit_align.jsonl import TOO_DEEP, is_too_deep
from lit_align.package_files import find_file
from lit_align.registry import closest_name

TYPES = (".json", ".jsonl", ".csv", ".tsv")
FILES = (*TYPES, *(f"{suffix}.gz" for suffix in TYPES), ".parquet")
TABLES = (".csv", ".tsv")
BYTE_ORDER_MARK_OR_BLANKS = b"\xef\xbb\xbf \t\r\n"


def read_rows(
    path: str, on_container: Callable[[str], object] = lambda key: None
) -> Iterator[LocatedRow]:
    """Yield every row of ``path``.

    Args:
        path: a file (JSON array, an object with one list of rows, JSON Lines, CSV or TSV, each also gzipped, or
            Parquet), or a data set on the Hugging Face hub as ``name/config:split@revision``; see `read_hub`.
        on_container: called with the key under which a file that is one object has its rows, before the first of them.

    Raises:
        DataError: if there is no such file or data set, or if it is broken as a whole.
    """
    path = find_file(path)
    if Path(path).is_file():
        return map(_refuse_nested, _file_reader(path, on_container)(path))
    if Path(path).is_dir():
        raise DataError(f"{path} is a folder; name the files in it")
    if not is_hub_name(path) or path.endswith(FILES):
        closest = _closest_file(path)
        hint = f"did you mean {closest}?" if closest else "correct the path"
        raise DataError(f"there is no file {path} (looked in {Path.cwd()}); {hint}")
    return map(_refuse_nested, read_hub(path))


def _closest_file(path: str) -> str | None:
    """The data file of the same folder whose name is closest; None if none is close."""
    folder = Path(path).parent
    if not folder.is_dir():
        return None
    names = [file.name for file in folder.iterdir() if file.name.endswith(FILES)]
    closest = closest_name(Path(path).name, names)
    return str(folder / closest) if closest else None


def _refuse_nested(record: LocatedRow) -> LocatedRow:
    """The record; an error in its place if it is nested too deeply for what walks through it."""
    place, row = record
    return (place, Malformed(TOO_DEEP)) if is_too_deep(row) else record


def is_table(path: str) -> bool:
    """Whether all cells of a file are text."""
    return path.removesuffix(".gz").endswith(TABLES)


def _file_reader(
    path: str, on_container: Callable[[str], object]
) -> Callable[[str], Iterator[LocatedRow]]:
    if not path.endswith(FILES):
        raise DataError(f"{path} has no known file type; use one of {', '.join(FILES)}")
    suffix = path.removesuffix(".gz").rpartition(".")[2]
    readers = {"jsonl": _read_jsonl, "csv": read_csv, "tsv": read_csv, "parquet": _read_parquet}
    return readers.get(suffix, partial(_read_json, on_container=on_container))


def _read_jsonl(path: str) -> Iterator[LocatedRow]:
    """One row a line; blank lines are skipped."""
    decoder = RowDecoder()
    with open_file(path) as file:
        lines = enumerate(file, 1)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                return
            except (OSError, EOFError) as error:  # gzip raises them for an incomplete download
                raise DataError(f"{path} is broken: {error}; fetch it again") from error
            if line.strip(BYTE_ORDER_MARK_OR_BLANKS):
                yield f"{path}:{number}", _parse_line(line, decoder)


class RowDecoder:
    """Decodes JSON values, and notices objects that have a key twice: which value is meant, nobody can know."""

    def __init__(self) -> None:
        self._repeated: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._build_object)

    def decode(self, text: str, position: int = 0) -> tuple[Row | Malformed, int]:
        """The row that begins at ``position``, and the position after it.

        Raises:
            ValueError: if it is not JSON.
        """
        self._repeated.clear()
        value, end = self._decoder.raw_decode(text, position)
        if self._repeated:
            return Malformed(f"an object with the key '{self._repeated[0]}' twice"), end
        return _check_row(value), end

    def _build_object(self, pairs: list[tuple[str, Any]]) -> Row:
        row = dict(pairs)
        if len(row) < len(pairs):
            keys = [key for key, _ in pairs]
            self._repeated += [key for key in row if keys.count(key) > 1]
        return row


def _parse_line(line: bytes, decoder: RowDecoder) -> Row | Malformed:
    """One line of JSON Lines, with or without a byte order mark."""
    try:
        text = line.decode("utf-8-sig").strip()
        row, end = decoder.decode(text)
    except UnicodeDecodeError:
        return Malformed(f"not UTF-8 (it looks like {guess_encoding(line)})")
    except ValueError:
        return Malformed("not JSON")
    except RecursionError:
        return Malformed(TOO_DEEP)
    return row if end == len(text) else Malformed("not JSON")


def _check_row(value: Any) -> Row | Malformed:
    if isinstance(value, dict):
        return value
    return Malformed(f"not an object with columns (got {type(value).__name__})")


def _read_json(path: str, on_container: Callable[[str], object]) -> Iterator[LocatedRow]:
    """The rows of an array, of the only array in an object, or of JSON Lines in a file that is named .json."""
    with open_file(path) as file:
        try:
            content = file.read()
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise not_utf8(path, content) from error
        except (OSError, EOFError) as error:
            raise DataError(f"{path} is broken: {error}; fetch it again") from error
    match text.lstrip()[:1]:
        case "[":
            yield from _read_array(path, text, text.index("["))
        case "{":
            members = object_members(text)
            is_line = "\n" not in text.strip()
            if members is None or (is_line and not is_only_rows(members)):
                yield from _read_jsonl(path)
                return
            key, start, _ = rows_member(path, members)
            del members, _  # they hold all rows, which are decoded again one by one
            on_container(key)
            yield from _read_array(path, text, start)
        case _:
            raise DataError(f"{path} is neither a JSON array of rows nor one row a line")


def _read_array(path: str, text: str, start: int) -> Iterator[LocatedRow]:
    """Decode the array that begins at ``start`` element by element, so that the line of each is known."""
    decoder = RowDecoder()
    position = skip_blanks(text, start + 1)
    if text[position : position + 1] == "]":
        return
    line, counted = 1, 0  # `line` is the line number at position `counted`
    while True:
        line, counted = line + text.count("\n", counted, position), position
        try:
            row, position = decoder.decode(text, position)
        except (ValueError, RecursionError) as error:
            problem = "is not JSON" if isinstance(error, ValueError) else f"is {TOO_DEEP}"
            raise DataError(
                f"{path}:{line} {problem}, so the rows after it cannot be read either: {error}"
            ) from error
        yield f"{path}:{line}", row
        position = skip_blanks(text, position)
        separator = text[position : position + 1]
        if separator == "]":
            return
        if separator != ",":
            raise DataError(
                f"{path}: the row at line {line} is followed by neither a comma nor the end of the array"
            )
        position = skip_blanks(text, position + 1)


def _read_parquet(path: str) -> Iterator[LocatedRow]:
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", row
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is broken after row {number}: {error}; fetch it again") from error
