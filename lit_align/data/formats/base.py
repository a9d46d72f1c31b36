"""Interface of a data set format, and how the format of a row is found."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, ClassVar

from lit_align.errors import DataError, RowError, UnknownColumns
from lit_align.types import Group, LabelKind

Row = dict[str, Any]
"""One record of a data set, as read."""

HUB = "https://huggingface.co/datasets/"
"""The address of a data set, without its name."""

LocatedRow = tuple[str, Row | RowError]
"""Where a row is, as ``file:line``, and the row or why it cannot be read."""


class Format(ABC):
    """One format of raw rows: a frozen dataclass whose fields, if any, are its settings.

    Class attributes:
        label_kinds: the label kinds of its rows, such as ``frozenset({LabelKind.PAIRS})``.
    """

    label_kinds: ClassVar[frozenset[LabelKind]]

    @abstractmethod
    def recognises(self, row: Row) -> bool:
        """Whether the row has the columns of this format; their values may still be malformed."""

    @abstractmethod
    def __call__(self, row: Row) -> Group:
        """Convert the row to a group; columns that the format does not read go to ``extra``.

        Raises:
            Malformed: if the row is broken; the message is a short reason that many rows can share.
            SetAside: if the row is valid but has no usable label, such as a tie.
        """

    def row_label_kinds(self, row: Row) -> frozenset[LabelKind]:
        """The label kinds of a row with these columns; override it where they depend on an optional column."""
        return self.label_kinds

    def note(self, row: Row) -> str:
        """What the ledger says of a row that is kept; nothing for most."""
        return ""

    def join(self, rows: Iterable[LocatedRow]) -> Iterator[LocatedRow]:
        """The rows of a file as this format reads them; override it where several records make one row."""
        yield from rows


def built_in() -> list[Format]:
    """One instance of each format that ships with lit_align, with default settings."""
    classes: list[type[Format]] = []
    package = __name__.rpartition(".")[0]
    for module_info in pkgutil.iter_modules(import_module(package).__path__):
        module = import_module(f"{package}.{module_info.name}")
        register_formats = getattr(module, "register_formats", None)
        if register_formats:
            register_formats(classes.append)
    return [cls() for cls in classes]


def recognise(row: Row, formats: Sequence[Format]) -> Format:
    """The one format that recognises the row's columns.

    Raises:
        DataError: if none does, or more than one.
    """
    matches = [row_format for row_format in formats if row_format.recognises(row)]
    if len(matches) == 1:
        return matches[0]
    raise no_format(row, formats) if not matches else ambiguous(row, matches)


def no_format(row: Row, formats: Sequence[Format]) -> UnknownColumns:
    """The error for columns that match none of the formats."""
    return UnknownColumns(
        f"no format matches the columns {_columns(row)}; rename them to those of one of {', '.join(_names(formats))} "
        "(`lit-align plugins formats` lists them) with data.columns, list those that are not to be read in "
        "data.ignore_columns, or write a plugin for them"
    )


def ambiguous(row: Row, matches: Sequence[Format]) -> DataError:
    """The error for columns that match several formats."""
    names = " or ".join(_names(matches))
    return DataError(f"the columns {_columns(row)} could be {names}; set format to one")


def _columns(row: Row) -> str:
    return ", ".join(map(str, row)) or "(none)"


def _names(formats: Sequence[Format]) -> list[str]:
    return sorted(type(row_format).__name__ for row_format in formats)
