"""Options about the rows of a data set in commands that do not train: they need no ``data.``, and may have it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from lit_align.cli.setting_homes import suggestion
from lit_align.errors import ConfigError, DataError

PREFIX = "--data."
TRAIN = "train"  # what fit calls the files

REMEDY = re.compile(
    r"(?<![-\w.])data\.((?:ignore_)?columns|format|max_malformed)\b(?:: (\{[^{}]+\}))?"
)
"""A setting of ``fit`` in a sentence about rows, with the value to write."""


def without_prefix(arguments: Sequence[str], names: Collection[str]) -> list[str]:
    """The arguments with ``--columns`` for ``--data.columns``, and so on.

    Args:
        arguments: of the command line.
        names: of the settings of the command.

    Raises:
        ConfigError: if the command has no such setting.

    Example:
        >>> without_prefix(["--data", "a.csv", "--data.columns={prompt: q}"], ["data", "columns"])
        ['--data', 'a.csv', '--columns={prompt: q}']
    """
    if "data" not in names:
        return list(arguments)
    return [
        _short_option(argument, names) if argument.startswith(PREFIX) else argument
        for argument in arguments
    ]


def _short_option(argument: str, names: Collection[str]) -> str:
    option, separator, value = argument.removeprefix(PREFIX).partition("=")
    name, dot, inner = option.replace("-", "_").partition(".")
    if name == TRAIN:
        name = "data"
    if name not in names:
        raise ConfigError(f"unknown key 'data.{name}'{suggestion(name, names)}")
    return f"--{name}{dot}{inner}{separator}{value}"


def as_options(sentence: str) -> str:
    """A sentence about rows that names settings of ``fit``, with the options of the other commands.

    Example:
        >>> as_options("set data.columns: {prompt: q}, or list it in data.ignore_columns")
        "set --columns '{prompt: q}', or list it in --ignore_columns"
    """
    return REMEDY.sub(_option, sentence)


def _option(match: re.Match[str]) -> str:
    return f"--{match[1]} '{match[2]}'" if match[2] else f"--{match[1]}"


@contextmanager
def named_as_options() -> Iterator[None]:
    """Let an error about rows name the options of the command that runs.

    Raises:
        DataError: the same with its remedy as an option.
    """
    try:
        yield
    except DataError as error:
        raise DataError(as_options(str(error))) from error
