"""The file's column for each column of a format: the setting ``columns``, and letter case."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from lit_align.data.formats import Row
from lit_align.errors import DataError
from lit_align.registry import closest_name

Names = dict[str, str]
"""The format's name of a column, by the file's name of it."""


def resolve_names(names: Mapping[str, str], columns: Collection[str], path: str) -> Names:
    """The setting ``columns``, turned around for the columns that a file has.

    An entry is left out if the file has no such column but names it as the format does.

    Args:
        names: the file's column for each column of the format.
        columns: of the file.
        path: of the file, for error messages.

    Raises:
        DataError: if the file has no such column, or two entries name the same one.
    """
    by_lower = {column.lower(): column for column in columns}
    resolved: Names = {}
    for format_name, file_name in names.items():
        column = file_name if file_name in columns else by_lower.get(file_name.lower())
        if column is None and format_name in columns:
            continue
        if column is None:
            suggestion = closest_name(file_name, columns)
            hint = f"did you mean {suggestion}?" if suggestion else f"it has {', '.join(columns)}"
            raise DataError(
                f"data.columns takes {format_name} from {file_name!r}, which is no column of {path}; {hint}"
            )
        if column in resolved:
            raise DataError(
                f"data.columns takes both {resolved[column]} and {format_name} from {column!r}; name one for each"
            )
        resolved[column] = format_name
    return resolved


def lower_names(columns: Iterable[str]) -> Names:
    """Columns in lower case, where that makes no two of them the same."""
    columns = list(columns)
    lower = [column.lower() for column in columns]
    return {
        column: name
        for column, name in zip(columns, lower, strict=True)
        if name != column and lower.count(name) == 1
    }


def rename(row: Row, names: Names) -> tuple[Row, Row]:
    """The row under the format's names, and the columns that had these names before, which nothing reads.

    Example:
        >>> rename({"question": "2 + 2?", "prompt": 7}, {"question": "prompt"})
        ({'prompt': '2 + 2?'}, {'prompt': 7})
    """
    targets = set(names.values())
    renamed: Row = {}
    displaced: Row = {}
    for column, value in row.items():
        if column in names:
            renamed[names[column]] = value
        elif column in targets:
            displaced[column] = value
        else:
            renamed[column] = value
    return renamed, displaced


def restore(extra: Row, names: Names, displaced: Row) -> Row:
    """The unread columns under the file's own names again."""
    file_names = {format_name: column for column, format_name in names.items()}
    restored = {file_names.get(name, name): value for name, value in extra.items()}
    return {**restored, **displaced}
