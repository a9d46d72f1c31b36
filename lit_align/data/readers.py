"""Read the rows of a file or of a hub data set, each with its place; unreadable rows are yielded as Malformed."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from lit_align.data.formats import Row
from lit_align.data.formats.base import LocatedRow
from lit_align.errors import DataError, Malformed

FILES = (".json", ".jsonl", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz", ".parquet")
TABLES = (".csv", ".tsv")
HUB = re.compile(r"(?P<name>[\w-][\w.-]*(/[\w-][\w.-]*)?)(:(?P<split>[\w.\[\]%:-]+))?")
BLANKS = re.compile(r"\s*")
BYTE_ORDER_MARK_OR_BLANKS = b"\xef\xbb\xbf \t\r\n"

def read_rows(path: str) -> Iterator[LocatedRow]:
    """Yield every row of ``path``.

    Args:
        path: a file (JSON array, JSON Lines, CSV, each also gzipped, or Parquet), or a data set on the Hugging Face hub
            as ``name`` or ``name:split``; the split is ``train`` by default.

    Raises:
        DataError: if there is no such file or data set, or if it is broken as a whole.
    """
    if Path(path).is_file():
        return _file_reader(path)(path)
    hub = HUB.fullmatch(path)
    if Path(path).is_dir():
        raise DataError(f"{path} is a folder; name the files in it")
    if hub is None or path.startswith(".") or path.endswith(FILES):
        raise DataError(f"there is no file {path} (looked in {Path.cwd()}); correct the path")
    return _read_hub(hub["name"], hub["split"] or "train")


def is_table(path: str) -> bool:
    """Whether all cells of a file are text."""
    return path.removesuffix(".gz").endswith(TABLES)


def _file_reader(path: str) -> Callable[[str], Iterator[LocatedRow]]:
    if not path.endswith(FILES):
        raise DataError(f"{path} has no known file type; use one of {', '.join(FILES)}")
    suffix = path.removesuffix(".gz").rpartition(".")[2]
    return {"json": _read_json, "jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}[
        suffix
    ]


def _open(path: str) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path) if path.endswith(".gz") else Path(path).open("rb"))


def _read_jsonl(path: str) -> Iterator[LocatedRow]:
    """One row a line; blank lines are skipped."""
    with _open(path) as file:
        lines = enumerate(file, 1)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                return
            except (OSError, EOFError) as error:  # gzip raises them for an incomplete download
                raise DataError(f"{path} is broken: {error}; fetch it again") from error
            if line.strip(BYTE_ORDER_MARK_OR_BLANKS):
                yield f"{path}:{number}", _parse_line(line)


def _parse_line(line: bytes) -> Row | Malformed:
    """One line of JSON Lines, with or without a byte order mark."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Malformed("not UTF-8")
    except (ValueError, RecursionError):
        return Malformed("not JSON")
    return _check_row(value)


def _check_row(value: Any) -> Row | Malformed:
    if isinstance(value, dict):
        return value
    return Malformed(f"not an object with columns (got {type(value).__name__})")


def _read_json(path: str) -> Iterator[LocatedRow]:
    """The rows of an array, or of JSON Lines in a file that is named .json."""
    with _open(path) as file:
        try:
            text = file.read().decode("utf-8-sig")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} is broken: {error}; fetch it again or save it as UTF-8"
            ) from error
    match text.lstrip()[:1]:
        case "[":
            yield from _read_array(path, text)
        case "{" if not _is_one_object(text):
            yield from _read_jsonl(path)
        case "{":
            raise DataError(
                f"{path} is one object, not rows; save the array of rows in it as a file of its own"
            )
        case _:
            raise DataError(f"{path} is neither a JSON array of rows nor one row a line")


def _read_array(path: str, text: str) -> Iterator[LocatedRow]:
    """Decode the array element by element, so that the line of each is known."""
    decoder = json.JSONDecoder()
    position = _skip_blanks(text, text.index("[") + 1)
    if text[position : position + 1] == "]":
        return
    line, counted = 1, 0  # `line` is the line number at position `counted`
    while True:
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{line} is not JSON, so the rows after it cannot be read either: {error}"
            ) from error
        yield f"{path}:{line}", _check_row(value)
        position = _skip_blanks(text, position)
        separator = text[position : position + 1]
        if separator == "]":
            return
        if separator != ",":
            raise DataError(
                f"{path}: the row at line {line} is followed by neither a comma nor the end of the array"
            )
        position = _skip_blanks(text, position + 1)


def _skip_blanks(text: str, position: int) -> int:
    """The position of the next character that is not white space."""
    return cast(re.Match[str], BLANKS.match(text, position)).end()


def _is_one_object(text: str) -> bool:
    """Whether the text is a single value over several lines, so that no line of it is a row."""
    if "\n" not in text.strip():
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _read_csv(path: str) -> Iterator[LocatedRow]:
    """One row a record, all cells text; a record may span lines, and its place is the first of them."""
    import csv
    import io

    csv.field_size_limit(2**31 - 1)  # a long conversation is a long cell
    with _open(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
        records = csv.DictReader(file, strict=True)
        while True:
            first = records.line_num + 1 if records.line_num else 2  # after the header
            try:
                row = next(records)
            except StopIteration:
                return
            except (csv.Error, OSError, EOFError, UnicodeDecodeError) as error:
                raise DataError(
                    f"{path}:{first} cannot be read, nor can the rows after it: {error}"
                ) from error
            if None in row or None in row.values():
                yield f"{path}:{first}", Malformed("not as many cells as columns")
            else:
                yield f"{path}:{first}", dict(row)


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


def _read_hub(name: str, split: str) -> Iterator[LocatedRow]:
    import datasets

    try:
        rows = datasets.load_dataset(name, split=split)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{name} (split {split}) is neither a file nor a data set on the hub: {reason}; correct it or give a file"
        ) from error
    for number, row in enumerate(rows, 1):
        yield f"{name}:{split}:{number}", row
