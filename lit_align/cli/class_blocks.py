"""Refuse blocks of a YAML that name a class and put its settings at the wrong level."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lit_align.cli.sources import read_sources
from lit_align.errors import ConfigError
from lit_align.registry import closest_name

CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
ELSEWHERE = ("class", "cls", "type", "clas_path", "class_pth")
"""What others call ``class_path``, and how it is misspelled."""


def refuse_misplaced_settings(arguments: Sequence[str]) -> None:
    """Look through the blocks of files and options that name a class.

    Args:
        arguments: of the command line.

    Raises:
        ConfigError: with the first setting that is not where it belongs, and where that is.
    """
    for _, settings in read_sources(arguments):
        for sentence in _sentences(settings, ""):
            raise ConfigError(sentence)


def _sentences(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _sentences(item, path)
    if not isinstance(value, dict):
        return
    if "class_path" in value:
        yield from _misplaced(value, path)
    elif path:
        for key in value:
            if _means_class_path(str(key)) or (key in ELSEWHERE and "init_args" in value):
                yield f"{path} has {key!r}, which is no key of a class; write class_path: {value[key]}"
    for key, item in value.items():
        inner = path if key in CLASS_KEYS else f"{path}.{key}".lstrip(".")
        yield from _sentences(item, inner)


def _misplaced(value: dict[str, Any], path: str) -> Iterator[str]:
    """Settings beside ``class_path``, and an ``init_args`` that holds none by name."""
    others = [str(key) for key in value if key not in CLASS_KEYS]
    misspelled = [key for key in others if closest_name(key, CLASS_KEYS)]
    if misspelled:
        yield (
            f"{_named(path)} has {misspelled[0]!r} beside class_path; did you mean "
            f"{closest_name(misspelled[0], CLASS_KEYS)}?"
        )
    if others:
        yield (
            f"the settings of {path or 'a class'}, such as {others[0]}, stand beside its class_path; indent them under "
            f"{f'{path}.init_args'.lstrip('.')}"
        )
    init_args = value.get("init_args", {})
    if not isinstance(init_args, dict):
        shown = "null" if init_args is None else repr(init_args)
        yield (
            f"{path}.init_args is {shown}, and holds settings by name; indent lines such as seed: 1 under it, or leave "
            "it out"
        )


def _means_class_path(key: str) -> bool:
    return key == "_target_" or re.sub(r"[\W_]", "", key).lower() == "classpath"


def _named(path: str) -> str:
    return path or "the YAML"
