"""Read files into groups: find each file's format, convert the labels, and record what became of every row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from lit_align.data.column_fates import ColumnSettings
from lit_align.data.format_choice import SAMPLE_ROWS
from lit_align.data.formats import Format
from lit_align.data.formats.base import LocatedRow
from lit_align.data.label_conversion import convert_labels, ordered_pairs
from lit_align.data.ledger import Ledger
from lit_align.data.readers import read_rows
from lit_align.data.row_reader import RowReader
from lit_align.errors import RowError
from lit_align.types import Group, LabelKind


@dataclass(frozen=True)
class DataSource:
    """Which files to read, and how.

    Args:
        paths: files or hub data sets.
        label_kind: the label kind that rows are converted to.
        format: the format of the rows; None finds it, for each path, from the columns that hold something.
        formats: the formats to choose from if ``format`` is None.
        attributes: which ratings are trained on; any if empty.
        max_malformed: largest share of malformed rows, over all paths together.
        on_ledger: called with the ledger before it is checked, since it is needed most when the data are refused.
        columns: what the settings say about columns.
    """

    paths: Sequence[str]
    label_kind: LabelKind
    format: Format | None = None
    formats: Sequence[Format] = ()
    attributes: Sequence[str] = ()
    max_malformed: float = 0.01
    on_ledger: Callable[[Ledger], object] = lambda ledger: None
    columns: ColumnSettings = field(default_factory=ColumnSettings)

    def new_ledger(self) -> Ledger:
        """An empty ledger of these files."""
        return Ledger(", ".join(self.paths))

    def close_ledger(self, ledger: Ledger) -> None:
        """Hand the ledger out, then check it.

        Raises:
            DataError: if too many rows are malformed or none is left.
        """
        reasons = {reason for _, reason in ledger.reasons}
        ledger.unmatched = self.columns.annotators.unmatched(reasons)
        self.on_ledger(ledger)
        ledger.check(self.max_malformed)


def read_groups(source: DataSource, ledger: Ledger) -> Iterator[tuple[Group, str]]:
    """Read and convert row by row; rows that are malformed or set aside go to the ledger instead.

    The caller enters the fate of each yielded group, so that every row has one.

    Yields:
        The converted group, and a note for the ledger if the conversion left responses out.

    Raises:
        DataError: if a path cannot be read, matches no format, or has no labels of a suitable kind.
    """
    for path in source.paths:
        reader, rows = open_rows(source, path, ledger)
        for row in rows:
            read = read_row(source, path, reader, row, ledger)
            if read is not None:
                yield read


def open_rows(
    source: DataSource, path: str, ledger: Ledger
) -> tuple[RowReader, Iterator[LocatedRow]]:
    """The reader of a file's rows, and the rows one by one; at their end the ledger gets how many records they were of.

    Raises:
        DataError: if the path cannot be read, matches no format, or has no labels of a suitable kind.
    """
    records = read_rows(path, ledger.add_container)
    first: list[LocatedRow] = []
    num_readable = 0
    for record in records:
        first.append(record)
        num_readable += not isinstance(record[1], RowError)
        if num_readable == SAMPLE_ROWS:
            break
    formats = (source.format,) if source.format else source.formats
    reader = RowReader.of_file(path, first, formats, source.label_kind, source.columns)

    return reader, _joined_rows(reader.row_format, chain(first, records), ledger)


def _joined_rows(
    row_format: Format, records: Iterable[LocatedRow], ledger: Ledger
) -> Iterator[LocatedRow]:
    """The rows of a file; at its end the ledger gets the number of records beyond the rows, or of rows beyond them."""
    num_records = 0

    def counted() -> Iterator[LocatedRow]:
        nonlocal num_records
        for record in records:
            num_records += 1
            yield record

    num_rows = 0
    for row in row_format.join(counted()):
        num_rows += 1
        yield row
    ledger.joined += max(num_records - num_rows, 0)
    ledger.divided += max(num_rows - num_records, 0)


def read_row(
    source: DataSource, path: str, reader: RowReader, row: LocatedRow, ledger: Ledger
) -> tuple[Group, str] | None:
    """The converted group of a row and a note for the ledger; None if the ledger has its fate already."""
    place, values = row
    ledger.rows += 1
    try:
        read = reader.read(values)
        group = read.group._replace(source=place)
        converted = convert_labels(group, source.label_kind, source.attributes)
    except RowError as error:
        ledger.add_error(place, error)
        return None
    for name in read.unread:
        ledger.add_unread(name)
    ledger.findings.add(path, converted)
    return converted, read.note or _conversion_note(group, converted, source.label_kind)


def load_groups(source: DataSource) -> list[Group]:
    """All groups as text, for commands that judge or show them: pairs ordered, coin tosses left out.

    Raises:
        DataError: as for `read_groups`, or if too many rows are malformed.
    """
    ledger = source.new_ledger()
    groups = []
    for group, note in read_groups(source, ledger):
        pairs = ordered_pairs(group.pairs)
        if source.label_kind == LabelKind.PAIRS and not pairs:
            ledger.add(group.source, "set aside", "no comparison that is more than a coin toss")
            continue
        ledger.add(group.source, "kept", note)
        groups.append(group._replace(pairs=pairs))
    source.close_ledger(ledger)
    return groups


def _conversion_note(group: Group, converted: Group, label_kind: LabelKind) -> str:
    left_out = len(converted.responses) < len(group.responses)
    if left_out and label_kind == LabelKind.DEMONSTRATIONS:
        return "only the better response of a comparison is imitated"
    return ""
