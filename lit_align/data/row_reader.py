"""Read the rows of one file with its format: names of columns, cells that are text, and the fate of every column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lit_align.annotators import ANNOTATOR, annotator_name
from lit_align.data.cell_text import (
    check_texts,
    looks_like_messages,
    parse_cells,
    unparsed_messages,
)
from lit_align.data.column_fates import ColumnSettings, read_shared_columns, unread_columns
from lit_align.data.column_names import Names, lower_names, rename, resolve_names, restore
from lit_align.data.format_choice import (
    check_label_kind,
    choose_format,
    fits,
    sample_rows,
    typical_row,
)
from lit_align.data.formats import Format, Row
from lit_align.data.formats.base import LocatedRow
from lit_align.data.formats.known_columns import holds_something
from lit_align.data.readers import is_table
from lit_align.errors import Malformed, RowError
from lit_align.plugin_contracts import group_fault, require_contract
from lit_align.types import Group, LabelKind


class ReadRow(NamedTuple):
    """A row as a group, the columns of it that nothing reads, and what the ledger says of it."""

    group: Group
    unread: list[str]
    note: str


class RowReader:
    """Reads the rows of one file or data set.

    Args:
        row_format: of its rows.
        names: the format's names of its columns, where they differ.
        columns: what the settings say about columns.
        from_table: whether all cells are text.
        has_prompts: whether rows have their prompt in a column, so that it is missing where it is null.
    """

    def __init__(
        self,
        row_format: Format,
        names: Names,
        columns: ColumnSettings,
        from_table: bool,
        has_prompts: bool = False,
    ) -> None:
        self.row_format = row_format
        self.has_prompts = has_prompts
        self.names = names
        self.columns = columns
        self.from_table = from_table

    @classmethod
    def of_file(
        cls,
        path: str,
        rows: Sequence[LocatedRow],
        formats: Sequence[Format],
        label_kind: LabelKind,
        columns: ColumnSettings,
    ) -> RowReader:
        """A reader for the rows of ``path``, with the one of ``formats`` that fits.

        Raises:
            DataError: if no format fits, or a column that the settings name is missing.
        """
        sample = sample_rows(rows, path, columns.ignored)
        names = resolve_names(columns.names, typical_row(sample), path)
        names = _resolve_case(sample, names, formats, label_kind)
        renamed = [parse_cells(rename(row, names)[0]) for row in sample]
        if len(formats) == 1:
            row_format = formats[0]
            check_label_kind(path, row_format, label_kind)
        else:
            row_format = choose_format(renamed, formats, label_kind, path)
        has_prompts = any("prompt" in row for row in renamed)
        return cls(row_format, names, columns, is_table(path), has_prompts)

    def read(self, row: Row | RowError) -> ReadRow:
        """The row as a group.

        Raises:
            Malformed: if the row is broken.
            SetAside: if it has no usable label, a column that must not be ignored, or an annotator that is left out.
        """
        if isinstance(row, RowError):
            raise row
        filled = {name: value for name, value in row.items() if value is not None}
        ignored = {name: value for name, value in filled.items() if name in self.columns.ignored}
        read = {name: value for name, value in filled.items() if name not in ignored}
        renamed, displaced = rename(read, self.names)
        displaced |= ignored
        parsed = parse_cells(renamed)
        group = self._convert(parsed)
        texts = restore(_unread_texts(group.extra, renamed, parsed), self.names, {})
        extra = restore(group.extra, self.names, {})
        for name in self.columns.read:
            if name in filled:  # a reward may need a column that is a response to the format
                extra[name] = filled[name]
        group = read_shared_columns(group._replace(extra=extra), self.columns.ignored)
        check_texts(group, self.from_table)
        unread = unread_columns(group, self.columns)
        group = group._replace(annotator=annotator_name(parsed.get(ANNOTATOR)))
        if group.annotator:
            own_names = {column for column, name in self.names.items() if name == ANNOTATOR}
            unread = [name for name in unread if name not in own_names | {ANNOTATOR}]
        self.columns.annotators.check(group.annotator)
        for name, value in displaced.items():
            if name not in self.columns.read and holds_something(value):
                unread.append(name)
        for name, value in texts.items():
            if name in group.extra:
                group.extra[name] = value
        group = group._replace(extra={**group.extra, **displaced})
        return ReadRow(group, unread, self.row_format.note(parsed))

    def _convert(self, row: Row) -> Group:
        try:
            group = self.row_format(row)
            require_contract(group_fault(self.row_format, group))
            if group.continues and group.prompt and self.has_prompts and "prompt" not in row:
                raise Malformed("missing field 'prompt'")
            return group
        except Malformed as error:
            for name, value in row.items():
                if isinstance(value, str) and looks_like_messages(value):
                    raise unparsed_messages(name) from error
            raise


def _unread_texts(extra: Row, row: Row, parsed: Row) -> Row:
    """The cells, as the file has them, that were parsed although the format reads none of them."""
    texts = {}
    for name, value in extra.items():
        if name in row and value is parsed[name]:
            texts[name] = row[name]
    return texts


def _resolve_case(
    sample: Sequence[Row], names: Names, formats: Sequence[Format], label_kind: LabelKind
) -> Names:
    """The names, and those of other columns in lower case if a format fits only then."""
    row = typical_row(sample)
    lower = dict(names)
    for column, name in lower_names(row).items():
        if column not in names and name not in names.values():
            lower[column] = name
    for candidates in (names, lower):
        renamed = parse_cells(rename(row, candidates)[0])
        if any(fits(row_format, renamed, label_kind) for row_format in formats):
            return candidates
    return names
