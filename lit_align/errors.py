"""Everything lit_align raises on purpose: one sentence that names the thing, its value and the remedy."""


class LitAlignError(Exception):
    """Base of all of them: catch this to catch only ours."""


class UnknownName(LitAlignError, KeyError):
    """No plugin provides that name."""

    __str__ = Exception.__str__  # KeyError would print the message in quotes


class AmbiguousName(LitAlignError):
    """Two plugins provide that name."""


class PluginError(LitAlignError):
    """A plugin offered something its hook does not take."""


class ConfigError(LitAlignError, ValueError):
    """A setting has an impossible value, contradicts another one, or cannot be met on this machine."""


class ModelError(LitAlignError):
    """A model, tokenizer or adapter cannot be used for what was asked of it."""


class DataError(LitAlignError):
    """The data as a whole cannot be trained on; the message says what is wrong and how to go on."""


class Malformed(LitAlignError):
    """One row is broken; it is counted in the ledger and left out."""


class SetAside(LitAlignError):
    """One row is sound but of no use to this objective (a tie, no majority); it is counted and left out."""


class Overlong(LitAlignError):
    """One row does not fit the length that was asked for; it is counted and left out."""


class TrainingError(LitAlignError):
    """Training cannot go on; the state was saved where the message says."""
