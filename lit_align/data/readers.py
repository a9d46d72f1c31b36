"""Rows of a file or of a hub data set, each with its place; what cannot be read is a row too, with a reason."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from lit_align.data.formats import Row
from lit_align.errors import DataError, Malformed

FILES = (".json", ".jsonl", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz", ".parquet")
HUB = re.compile(r"(?P<name>[\w-][\w.-]*(/[\w-][\w.-]*)?)(:(?P<split>[\w.\[\]%:-]+))?")

Found = tuple[str, Row | Malformed]
"""Where a row stands, as ``file:line``, and the row or what is wrong with it."""


def read(path: str) -> Iterator[Found]:
    """Every row of ``path``.

    Args:
        path: a file (JSON array, JSON Lines, CSV, each also gzipped, or Parquet), or a data set on the Hugging Face hub
            as ``name`` or ``name:split``, with split ``train`` if it is not said.

    Raises:
        DataError: if there is no such file or data set, or if it is broken as a whole.
    """
    if Path(path).is_file():
        return _read_file(path)
    hub = HUB.fullmatch(path)
    if Path(path).is_dir():
        raise DataError(f"{path} is a folder; name the files in it")
    if hub is None or path.startswith(".") or path.endswith(FILES):
        raise DataError(f"there is no file {path} (looked in {Path.cwd()}); correct the path")
    return _read_hub(hub["name"], hub["split"] or "train")


def _read_file(path: str) -> Iterator[Found]:
    if path.endswith(".parquet"):
        return _read_parquet(path)
    kind = path.removesuffix(".gz").rpartition(".")[2]
    if not path.endswith(FILES):
        raise DataError(f"{path} is of no kind that can be read; use one of {', '.join(FILES)}")
    return {"json": _read_json, "jsonl": _read_jsonl, "csv": _read_csv}[kind](path)


def _open(path: str) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path) if path.endswith(".gz") else Path(path).open("rb"))


def _read_jsonl(path: str) -> Iterator[Found]:
    """One row a line; blank lines are not rows."""
    with _open(path) as file:
        lines = enumerate(file, 1)
        while True:
            try:
                number, line = next(lines)
            except StopIteration:
                return
            except (OSError, EOFError) as error:  # what gzip raises where a download was cut off
                raise DataError(f"{path} is broken: {error}; fetch it again") from error
            if line.strip(b"\xef\xbb\xbf \t\r\n"):
                yield f"{path}:{number}", _row(line)


def _row(line: bytes) -> Row | Malformed:
    """One line of JSON Lines, with or without a byte order mark."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Malformed("not UTF-8")
    except (ValueError, RecursionError):
        return Malformed("not JSON")
    return _checked(value)


def _checked(value: Any) -> Row | Malformed:
    return (
        value
        if isinstance(value, dict)
        else Malformed(f"not an object with columns (got {type(value).__name__})")
    )


def _read_json(path: str) -> Iterator[Found]:
    """An array of rows, element by element so that each line number is known; or JSON Lines under the wrong name."""
    with _open(path) as file:
        try:
            text = file.read().decode("utf-8-sig")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} is broken: {error}; fetch it again or save it as UTF-8"
            ) from error
    at, blank = 0, re.compile(r"\s*")

    def skip() -> str:
        nonlocal at
        at = cast(re.Match[str], blank.match(text, at)).end()
        return text[at : at + 1]

    if skip() == "{":
        if _is_one_object(text):
            raise DataError(
                f"{path} is one object, not rows; save the array of rows in it as a file of its own"
            )
        yield from _read_jsonl(path)
        return
    if skip() != "[":
        raise DataError(f"{path} is neither a JSON array of rows nor one row a line")
    at, line, counted, decoder = at + 1, 1, 0, json.JSONDecoder()
    if skip() == "]":
        return
    while True:
        skip()
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{line} is not JSON, so the rows after it cannot be told: {error}"
            ) from error
        yield f"{path}:{line}", _checked(value)
        ends = skip()
        if ends not in {",", "]"}:
            raise DataError(
                f"{path}: the row at line {line} is followed by neither a comma nor the end of the array"
            )
        if ends == "]":
            return
        at += 1


def _is_one_object(text: str) -> bool:
    """Whether the text is a single value over several lines, so that no line of it is a row."""
    if "\n" not in text.strip():
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _read_csv(path: str) -> Iterator[Found]:
    """One row a record, each cell text; a record may span lines and is found by its first."""
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
                    f"{path}:{first} cannot be read, nor what follows it: {error}"
                ) from error
            if None in row or None in row.values():
                yield f"{path}:{first}", Malformed("not as many cells as columns")
            else:
                yield f"{path}:{first}", dict(row)


def _read_parquet(path: str) -> Iterator[Found]:
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", row
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is broken after row {number}: {error}; fetch it again") from error


def _read_hub(name: str, split: str) -> Iterator[Found]:
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
