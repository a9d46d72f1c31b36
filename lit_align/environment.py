"""Environment variables of lit_align: one whose name is misspelled is refused, since nothing would read it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from lit_align.errors import ConfigError
from lit_align.registry import closest_name

PREFIX = "LIT_ALIGN_"
NAMES = ("PLUGINS", "BLOCK", "STRICT", "TRACE", "TRACEBACK", "CACHE", "RUN")
"""Variables that are read, without their prefix."""


def refuse_misspelled_variables(variables: Iterable[str] | None = None) -> None:
    """Look for variables whose names are nearly those that are read.

    Args:
        variables: names of variables; None are those of the process.

    Raises:
        ConfigError: with the name that was probably meant.

    Example:
        >>> refuse_misspelled_variables(["LIT_ALIGN_PLUGINS", "LIT_ALIGN_DATA", "PATH"])
        >>> refuse_misspelled_variables(["LIT_ALIGN_PLUGIN"])
        Traceback (most recent call last):
        lit_align.errors.ConfigError: LIT_ALIGN_PLUGIN is set, and nothing reads it; did you mean LIT_ALIGN_PLUGINS?
    """
    for variable in os.environ if variables is None else variables:
        name = variable.removeprefix(PREFIX)
        if name == variable or name in NAMES:
            continue
        closest = closest_name(name, NAMES)
        if closest:
            raise ConfigError(
                f"{variable} is set, and nothing reads it; did you mean {PREFIX}{closest}?"
            )
