"""What a dataset layout must answer, and how the layout of a row is found."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Any, ClassVar

from lit_align.errors import DataError
from lit_align.types import Group

Row = dict[str, Any]
"""One record of a data set, as found."""


class Format(ABC):
    """One layout of raw rows: a frozen dataclass whose fields, if any, are its settings.

    Class attributes:
        label_kinds: the labels its rows carry, of ``"pairs"``, ``"demonstrations"``, ``"desirable"`` and ``"ranking"``.
    """

    label_kinds: ClassVar[frozenset[str]]

    @abstractmethod
    def recognises(self, row: Row) -> bool:
        """Whether the row's columns are those of this layout; their values may still be broken."""

    @abstractmethod
    def __call__(self, row: Row) -> Group:
        """The row as a group; columns that it does not use go to ``extra``.

        Raises:
            Malformed: if the row is broken; the message is a short reason that many rows can share.
            SetAside: if the row is sound but says nothing, such as a tie.
        """


def built_in() -> list[Format]:
    """One of each layout that lit_align brings, with default settings."""
    found: list[type[Format]] = []
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(import_module(package).__path__):
        hook = getattr(import_module(f"{package}.{module.name}"), "register_formats", None)
        if hook:
            hook(found.append)
    return [layout() for layout in found]


def recognise(row: Row, formats: Sequence[Format]) -> Format:
    """The one layout whose columns the row has.

    Raises:
        DataError: if none has, or more than one.
    """
    match [layout for layout in formats if layout.recognises(row)]:
        case [layout]:
            return layout
        case []:
            raise DataError(
                f"no layout has the columns {', '.join(map(str, row)) or '(none)'}; rename them to those of one of "
                f"{', '.join(_names(formats))} (`lit-align plugins formats` says which), or write a plugin for them"
            )
        case several:
            raise DataError(
                f"the columns {', '.join(map(str, row))} could be {' or '.join(_names(several))}; set format to one"
            )


def _names(formats: Sequence[Format]) -> list[str]:
    return sorted(type(layout).__name__ for layout in formats)
