"""Environment variables of lit_align: a warning where a name is nearly that of one, since nothing would read it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable

from lit_align.registry import closest_name

PREFIX = "LIT_ALIGN_"
NAMES = ("PLUGINS", "BLOCK", "STRICT", "TRACE", "TRACEBACK", "CACHE", "RUN")
"""Variables that are read, without their prefix."""


def warn_of_misspelled_variables(variables: Iterable[str] | None = None) -> None:
    """Warn of variables whose names are nearly those that are read.

    Args:
        variables: names of variables; None are those of the process.

    Example:
        >>> warn_of_misspelled_variables(["LIT_ALIGN_PLUGINS", "LIT_ALIGN_DATA", "PATH"])
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warn_of_misspelled_variables(["LIT_ALIGN_PLUGIN"])
        >>> str(caught[0].message)
        'lit_align does not read LIT_ALIGN_PLUGIN; did you mean LIT_ALIGN_PLUGINS?'
    """
    for variable in os.environ if variables is None else variables:
        name = variable.removeprefix(PREFIX)
        if name == variable or name in NAMES:
            continue
        closest = closest_name(name, NAMES)
        if closest:
            message = f"lit_align does not read {variable}; did you mean {PREFIX}{closest}?"
            warnings.warn(message, stacklevel=2)  # it may be a plugin's own
