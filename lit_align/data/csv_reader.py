"""Read the records of CSV files, whatever separates their cells."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from lit_align.data.file_bytes import not_utf8, open_file
from lit_align.data.formats.base import LocatedRow
from lit_align.errors import DataError, Malformed

DELIMITERS = (",", ";", "\t", "|")
SAMPLE = 2**16  # characters from which the delimiter is found


def read_csv(path: str) -> Iterator[LocatedRow]:
    """One row a record, all cells text; a record may span lines, and its place is the first of them.

    Raises:
        DataError: if the file cannot be read to its end, or two columns have the same name.
    """
    csv.field_size_limit(2**31 - 1)  # a long conversation is a long cell
    with (
        open_file(path) as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file,
    ):
        try:
            delimiter = _delimiter_of(path, file)
            records = csv.DictReader(file, strict=True, delimiter=delimiter)
            _check_header(path, records.fieldnames or ())
        except UnicodeDecodeError as error:
            raise not_utf8(path, error.object) from error
        except (csv.Error, OSError, EOFError) as error:
            raise DataError(
                f"{path}: the first line, with the columns, is broken: {error}"
            ) from error
        while True:
            first = records.line_num + 1 if records.line_num > 1 else 2  # after the header
            try:
                row = next(records)
            except StopIteration:
                return
            except UnicodeDecodeError as error:
                raise not_utf8(path, error.object, f" after line {first - 1}") from error
            except (csv.Error, OSError, EOFError) as error:
                raise DataError(
                    f"{path}:{first} cannot be read, nor can the rows after it: {error}"
                ) from error
            if None in row or None in row.values():
                yield f"{path}:{first}", Malformed("not as many cells as columns")
            else:
                yield f"{path}:{first}", dict(row)


def find_delimiter(text: str) -> str:
    r"""What separates the cells of a text: it is in the first record, and most records have as many cells.

    Example:
        >>> find_delimiter('prompt;chosen\n"a;b";c, d\n')
        ';'
    """
    best, best_rank = DELIMITERS[0], (0.0, 1)
    for delimiter in DELIMITERS:
        records = list(csv.reader(io.StringIO(text), delimiter=delimiter))
        if not records:
            continue
        width = len(records[0])
        as_wide = sum(len(record) == width for record in records)
        rank = (as_wide / len(records), width)
        if width > 1 and rank > best_rank:
            best, best_rank = delimiter, rank
    return best


def _delimiter_of(path: str, file: io.TextIOWrapper) -> str:
    """The delimiter of a file at its start, to which it returns."""
    if path.removesuffix(".gz").endswith(".tsv"):
        return "\t"
    sample = file.read(SAMPLE)
    file.seek(0)
    if len(sample) == SAMPLE:
        sample = sample[: sample.rfind("\n") + 1] or sample
    return find_delimiter(sample)


def _check_header(path: str, names: Sequence[str]) -> None:
    for name in names:
        if list(names).count(name) > 1:
            raise DataError(f"{path} has several columns called {name!r}; rename all but one")
