"""Find the format of a file from the columns that hold something, and from the labels that are needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lit_align.data.formats import Format, Row
from lit_align.data.formats.base import LocatedRow, ambiguous, no_format
from lit_align.data.formats.known_columns import holds_something
from lit_align.data.formats.unsupported import why_unsupported
from lit_align.data.label_conversion import DERIVABLE_FROM
from lit_align.errors import DataError, RowError, UnknownColumns
from lit_align.types import LabelKind

SAMPLE_ROWS = 1000
COMPARED = frozenset({LabelKind.PAIRS, LabelKind.RANKING})


def sample_rows(rows: Sequence[LocatedRow], path: str, ignored: Collection[str] = ()) -> list[Row]:
    """The first rows that can be read, without the cells that hold nothing and the columns that are ignored.

    Raises:
        DataError: if no row can be read.
    """
    sample = []
    for _, row in rows:
        if not isinstance(row, RowError):
            sample.append(_filled_cells(row, ignored))
        if len(sample) == SAMPLE_ROWS:
            break
    if sample:
        return sample
    example = ""
    if rows:
        place, reason = rows[0]
        example = f" (the first, {place}, is {reason})"
    counted = "the only row" if len(rows) == 1 else f"none of the {len(rows)} rows"
    verb = "cannot" if len(rows) == 1 else "can"
    raise DataError(f"{counted} of {path} {verb} be read{example}; correct the file")


def _filled_cells(row: Row, ignored: Collection[str]) -> Row:
    """The cells that hold something, without the columns that are ignored."""
    filled = {}
    for name, value in row.items():
        if holds_something(value) and name not in ignored:
            filled[name] = value
    return filled


def typical_row(sample: Sequence[Row]) -> Row:
    """A row with all columns that hold something in the sample, each with its first value."""
    merged: Row = {}
    for row in sample:
        for name, value in row.items():
            merged.setdefault(name, value)
    return merged


def fits(row_format: Format, row: Row, label_kind: LabelKind) -> bool:
    """Whether a format reads the row, and labels of this kind can be derived from its."""
    kinds = DERIVABLE_FROM[label_kind]
    return row_format.recognises(row) and not kinds.isdisjoint(row_format.row_label_kinds(row))


def choose_format(
    sample: Sequence[Row], formats: Sequence[Format], label_kind: LabelKind, path: str
) -> Format:
    """The format of a file's rows: the one that recognises all their columns together, or else the first row's.

    Where several do, those are left that have the labels that are needed, and of these the ones with the fewest
    others in between.

    Args:
        sample: rows without empty cells.
        formats: to choose from.
        label_kind: what the rows are converted to.
        path: of the file, for error messages.

    Raises:
        DataError: if no format matches, none has labels of a suitable kind, or several have.
    """
    for row in (typical_row(sample), *sample):
        matches = [row_format for row_format in formats if row_format.recognises(row)]
        if matches:
            return _suitable(row, matches, label_kind, path)
    raise _unknown(typical_row(sample), formats, path)


def check_label_kind(path: str, row_format: Format, kind: LabelKind) -> None:
    """Refuse a format from whose labels the needed ones cannot be derived.

    Raises:
        DataError: naming both.
    """
    label_kinds = row_format.label_kinds
    if not label_kinds & DERIVABLE_FROM[kind]:
        raise _unsuitable([row_format], label_kinds, kind, path)


def _suitable(row: Row, matches: Sequence[Format], label_kind: LabelKind, path: str) -> Format:
    ranked = []
    all_kinds: frozenset[LabelKind] = frozenset()
    for row_format in matches:
        kinds = row_format.row_label_kinds(row)
        all_kinds |= kinds
        if kinds & DERIVABLE_FROM[label_kind]:
            ranked.append((_detour(kinds, label_kind), row_format))
    if not ranked and all_kinds == {LabelKind.PROMPTS}:
        raise _no_response(row, label_kind, path)
    if not ranked:
        raise _unsuitable(matches, all_kinds, label_kind, path)
    shortest = min(detour for detour, _ in ranked)
    candidates = [row_format for detour, row_format in ranked if detour == shortest]
    if len(candidates) > 1:
        raise ambiguous(row, candidates)
    return candidates[0]


def _detour(kinds: frozenset[LabelKind], label_kind: LabelKind) -> int:
    """0 if a format with these labels is made for what is needed; more, the more has to be derived or left out."""
    is_comparison = not kinds.isdisjoint(COMPARED)
    if label_kind == LabelKind.RESPONSES:
        if is_comparison:
            return 0
        return 1 if kinds == {LabelKind.PROMPTS} else 2  # a single answer may be for a reward
    if label_kind == LabelKind.PROMPTS and label_kind not in kinds:
        return 1 if is_comparison else 2  # the prompt of a comparison stands in a column of its own
    if label_kind not in kinds:
        return 2
    is_imitated = label_kind == LabelKind.DEMONSTRATIONS and is_comparison
    return int(is_imitated)  # of comparisons only the better side is imitated


def _unknown(row: Row, formats: Sequence[Format], path: str) -> DataError:
    """The error for columns that no format reads, with the reason if the set is known."""
    reason = why_unsupported(row)
    if not reason:
        return no_format(row, formats)
    return DataError(f"{path} cannot be read as it is: {reason}")


def _no_response(row: Row, label_kind: LabelKind, path: str) -> DataError:
    """The error for columns of which only the prompt is known."""
    reason = why_unsupported(row)
    if reason:
        return DataError(f"{path} cannot be read as it is: {reason}")
    columns = ", ".join(map(str, row))
    return UnknownColumns(
        f"{path} is read as prompts, but {label_kind} are needed, and none of its columns {columns} is "
        "known to be a response; rename those that are with data.columns, list the others in data.ignore_columns, or "
        "use another objective"
    )


def _unsuitable(
    formats: Sequence[Format], label_kinds: frozenset[LabelKind], label_kind: LabelKind, path: str
) -> DataError:
    kinds = " and ".join(sorted(label_kinds))
    names = " or ".join(sorted(type(row_format).__name__ for row_format in formats))
    return DataError(
        f"{path} has the format {names}, whose labels are {kinds}, but {label_kind} are needed; "
        "use other data or another objective"
    )
