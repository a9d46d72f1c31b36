"""Everything lit_align raises on purpose: one sentence that names the thing, its value and the remedy."""

from __future__ import annotations

from typing import ClassVar


class LitAlignError(Exception):
    """Base of all of them: catch this to catch only ours."""


class UnknownName(LitAlignError, KeyError):
    """No plugin provides that name."""

    __str__ = Exception.__str__  # KeyError would print the message in quotes


class AmbiguousName(LitAlignError):
    """Two plugins provide that name."""


class PluginError(LitAlignError):
    """A plugin registered what its hook does not accept."""


class ConfigError(LitAlignError, ValueError):
    """A setting has an impossible value, contradicts another one, or cannot be met on this machine."""


class ModelError(LitAlignError):
    """A model, tokenizer or adapter cannot be used for what is needed."""


class DataError(LitAlignError):
    """The data as a whole cannot be trained on; the message says what is wrong and how to go on."""


class UnknownColumns(DataError):
    """The columns of a file are none that are known."""


class RowError(LitAlignError):
    """One row cannot be used: it is counted in the ledger under ``fate`` and left out; the message is the reason."""

    fate: ClassVar[str]


class Malformed(RowError):
    """The row is broken."""

    fate = "malformed"


class SetAside(RowError):
    """The row is valid but of no use to this objective, such as a tie or a vote without a majority."""

    fate = "set aside"


class Overlong(RowError):
    """The row does not fit the maximum length."""

    fate = "overlong"


class TrainingError(LitAlignError):
    """Training cannot go on; the state was saved where the message says."""


class OtherProcessFailed(LitAlignError):
    """Another process of the run failed; that one says why."""
