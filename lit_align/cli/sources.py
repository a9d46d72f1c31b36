"""The settings on a command line, file by file and option by option, as they are written there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIG_OPTIONS = ("-c", "--config")


def read_sources(arguments: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each YAML and each option in order: its name, and its settings nested as in a YAML.

    What cannot be read is left out: the parser reports it better.

    Example:
        >>> [source for source, _ in read_sources(["fit", "--model.lora.r=8", "--data", "Comparisons"])]
        ['--model.lora.r', '--data']
    """
    for option, value in _split_options(arguments):
        if option in CONFIG_OPTIONS:
            settings = read_yaml(value)
            if isinstance(settings, dict):
                yield value, settings
        elif option.startswith("--"):
            keys = option.removeprefix("--").removesuffix("+").split(".")
            yield option, _nested(keys, _parse_value(value))


def config_values(arguments: Sequence[str]) -> Iterator[str]:
    """What stands after each ``-c`` or ``--config``: a path, or a YAML written out."""
    for option, value in _split_options(arguments):
        if option in CONFIG_OPTIONS:
            yield value


def class_in(value: Any) -> str:
    """The class that a setting names, alone or as the ``class_path`` of a block; empty if it names none.

    Example:
        >>> class_in("DPO"), class_in({"class_path": "DPO", "init_args": {}}), class_in(None)
        ('DPO', 'DPO', '')
    """
    if isinstance(value, dict):
        value = value.get("class_path")
    return value if isinstance(value, str) else ""


def _split_options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of an option and its value, joined by ``=`` or apart; an option with several values comes several times."""
    option = ""
    for argument in arguments:
        if argument.startswith("--") and "=" in argument:
            option, value = argument.split("=", 1)
            yield option, value
            option = ""
        elif argument.startswith("-c") and argument != "-c":
            yield "-c", argument.removeprefix("-c").removeprefix("=")
            option = ""
        elif argument == "-c" or argument.startswith("--"):
            option = argument
        elif option:
            yield option, argument


def read_yaml(path: str) -> Any:
    """The content of a YAML file; None if it cannot be read."""
    try:
        return yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _parse_value(text: str) -> Any:
    """A value in braces or brackets, or in a YAML of its own, as Python; other text as it is."""
    if text.endswith((".yaml", ".yml")) and Path(text).is_file():
        return read_yaml(text)
    if not text.startswith(("{", "[")):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for the keys a and b."""
    settings = value
    for key in reversed(keys):
        settings = {key: settings}
    return dict(settings)
