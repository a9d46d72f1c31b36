"""What a data file holds, and whether a task can learn from it: format, columns, number of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lit_align.cli.data_options import as_options
from lit_align.cli.tasks import SIMPLEST, TASKS, Task
from lit_align.data.column_fates import ColumnSettings
from lit_align.data.format_choice import SAMPLE_ROWS, sample_rows, typical_row
from lit_align.data.formats.base import LocatedRow
from lit_align.data.hub_reader import is_hub_name
from lit_align.data.label_conversion import convert_labels
from lit_align.data.read_groups import DataSource
from lit_align.data.readers import read_rows
from lit_align.data.row_reader import RowReader
from lit_align.errors import DataError, RowError, UnknownColumns
from lit_align.plugins import load_plugins
from lit_align.types import LabelKind

MAX_COUNTED = 200_000  # records of a file; more are not counted


@dataclass(frozen=True)
class Layout:
    """What the rows of the data look like.

    Args:
        text: a line for each file.
        num_rows: of all files that could be read; None if one of them could not, or has more than are counted.
        columns: that hold something, of all files.
        fates: how many of the first rows are kept, and how many are not for each reason.
    """

    text: str
    num_rows: int | None
    columns: frozenset[str] = frozenset()
    fates: Counter[str] = field(default_factory=Counter)

    @property
    def stop_text(self) -> str:
        """What stops a run with these rows, and what to do about it; empty if nothing does."""
        num_rows, limit = self.fates.total(), DataSource.max_malformed
        malformed = sum(count for fate, count in self.fates.items() if fate.startswith("malformed"))
        if malformed <= limit * num_rows:
            return ""
        place = self.text.partition(": ")[0] if "\n" not in self.text else "these files"
        return (
            f"lit-align fit stops at these rows: {malformed:,} of the first {num_rows:,} of {place} are malformed, "
            f"over data.max_malformed {limit:g}; mend them, or raise data.max_malformed to train on the others"
        )


def describe_files(
    paths: Sequence[str], task: Task, columns_of_data: ColumnSettings | None = None
) -> Layout:
    """Read the first rows of each file and count the others.

    Args:
        paths: files, or data sets on the hub.
        task: that is to learn from them.
        columns_of_data: what the user says about the columns.

    Raises:
        DataError: if there is no such file, or the task cannot learn from its rows.
    """
    lines: list[str] = []
    columns: set[str] = set()
    fates: Counter[str] = Counter()
    num_rows: int | None = 0
    for path in paths:
        layout = _describe(path, task, columns_of_data or ColumnSettings())
        lines.append(layout.text)
        columns |= layout.columns
        fates += layout.fates
        num_rows = None if None in (num_rows, layout.num_rows) else num_rows + layout.num_rows  # type: ignore[operator]
    return Layout("\n".join(lines), num_rows, frozenset(columns), fates)


def _describe(path: str, task: Task, columns_of_data: ColumnSettings) -> Layout:
    try:
        records = read_rows(path)
        first = list(islice(records, SAMPLE_ROWS))
    except DataError as error:
        if Path(path).exists() or not is_hub_name(path) or "/" not in path:
            raise
        return Layout(f"{path} could not be read here, so its layout is not checked: {error}", None)
    reader = _open_reader(path, first, task, columns_of_data)
    fates = _count_fates(reader, first, LabelKind(task.label_kind))
    if not fates["kept"]:
        reason, _ = fates.most_common(1)[0]
        raise DataError(
            f"none of the first {len(first):,} rows of {path} can be trained on: {reason}; {_needs(task)}"
        )
    num_records = len(first) + sum(1 for _ in islice(records, MAX_COUNTED))
    is_counted = num_records < len(first) + MAX_COUNTED
    columns = typical_row(sample_rows(first, path))
    text = (
        f"{path}: {'' if is_counted else 'over '}{num_records:,} rows in the format "
        f"{type(reader.row_format).__name__} (columns {', '.join(map(str, columns))})"
    )
    for reason, count in fates.items():
        if reason != "kept":
            text += f"; {count:,} of the first {len(first):,} are left out: {reason}"
    return Layout(text, num_records if is_counted else None, frozenset(columns), fates)


def _open_reader(
    path: str, first: Sequence[LocatedRow], task: Task, columns: ColumnSettings
) -> RowReader:
    """The reader of a file's rows; if they do not fit the task, the error says which tasks they fit."""
    formats = load_plugins().formats.default_instances()

    def open_for(some: Task) -> RowReader:
        return RowReader.of_file(path, first, formats, LabelKind(some.label_kind), columns)

    try:
        return open_for(task)
    except UnknownColumns as error:
        sentence = _rename(path, first, task, columns) or as_options(str(error))
        raise DataError(sentence) from error
    except DataError as error:
        fitting = []
        for other in TASKS:
            try:
                open_for(other)
            except DataError:
                continue
            fitting.append(other.name)
        hint = f"; these rows fit the tasks {', '.join(fitting)}" if fitting else ""
        raise DataError(f"{as_options(str(error))}. {_needs(task)}{hint}") from error


def _rename(path: str, first: Sequence[LocatedRow], task: Task, columns: ColumnSettings) -> str:
    """What the task reads, what the file has, and the option that names a column; empty if it has all of them."""
    present = list(map(str, typical_row(sample_rows(first, path, columns.ignored))))
    if task.label_kind not in SIMPLEST:
        return f"{task.name} reads {task.columns}; {path} has {', '.join(present)}; rename the columns in the file"
    known = {*present, *columns.names}
    missing = [name for name in SIMPLEST[task.label_kind] if name not in known]
    if not missing:
        return ""
    mapping = {**columns.names, **dict.fromkeys(missing, "...")}
    example = ", ".join(f"{name}: {column}" for name, column in mapping.items())
    return (
        f"{task.name} reads {task.columns}; {path} has {', '.join(present)}. Name your columns, in place of the dots:\n"
        f"  --columns '{{{example}}}'\n"
        "List those that are not to be read: --ignore_columns '[id]'"
    )


def _count_fates(reader: RowReader, first: Sequence[LocatedRow], kind: LabelKind) -> Counter[str]:
    """How many of the first rows are kept, and how many are not for each reason."""
    fates: Counter[str] = Counter()
    for _, row in reader.row_format.join(first):
        try:
            convert_labels(reader.read(row).group, kind)
        except RowError as error:
            fates[f"{error.fate}, {error}"] += 1
        else:
            fates["kept"] += 1
    return fates


def _needs(task: Task) -> str:
    return f"The task {task.name} reads rows with {task.columns}"
