"""``lit-align inspect --safe``: what a YAML would import, without importing it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

from lit_align.cli.sources import read_sources, read_yaml
from lit_align.installed_plugins import installed_plugins

DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
MAX_DEPTH = 20  # of files that name files

NOTE = "A YAML names classes, and naming one imports its module: that runs code. Use the YAML of people you trust."


class Import(NamedTuple):
    """A class or function that a setting names.

    Args:
        setting: where, as ``file: key``.
        name: dotted, as written.
        origin: the installed package or the path that its module would be imported from.
    """

    setting: str
    name: str
    origin: str


def run(arguments: Sequence[str]) -> list[Import]:
    """Print the imports that the settings name, and the installed plugins, which every command imports.

    Args:
        arguments: of the command line, after ``inspect``.
    """
    imports = find_imports(arguments)
    width = max((len(entry.name) for entry in imports), default=0)
    for entry in imports:
        print(f"{entry.name:<{width}}  from {entry.origin}  ({entry.setting})")
    if not imports:
        print("No setting names a class by its module.")
    for plugin in installed_plugins():
        module = plugin.entry_point.module
        print(f"{module}  from {plugin.name} {plugin.version}, a plugin that every command imports")
    print(NOTE)
    return imports


def find_imports(arguments: Sequence[str]) -> list[Import]:
    """The imports that the YAML files and options of a command line name, in order."""
    sys.path.insert(0, "")  # as when the command itself looks for modules
    try:
        return [*_find_all(arguments)]
    finally:
        sys.path.remove("")


def _find_all(arguments: Sequence[str]) -> Iterator[Import]:
    distributions = packages_distributions()
    for source, settings in read_sources(arguments):
        for setting, name in _dotted_names(settings, source, MAX_DEPTH):
            origin = _origin(name, distributions)
            if origin:
                yield Import(setting, name, origin)


def _dotted_names(value: Any, setting: str, depth: int) -> Iterator[tuple[str, str]]:
    """Every text in the settings that has the form of a module's class, files that they name included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _dotted_names(item, f"{setting}: {key}", depth)
    elif isinstance(value, list):
        for item in value:
            yield from _dotted_names(item, setting, depth)
    elif isinstance(value, str):
        if DOTTED_NAME.fullmatch(value.strip()):
            yield setting, value.strip()
        if depth and Path(value).suffix in (".yaml", ".yml", ".json"):
            yield from _dotted_names(read_yaml(value), value, depth - 1)


def _origin(name: str, distributions: Any) -> str:
    """Where the first part of a dotted name is; empty if there is no such module. Imports nothing."""
    package = name.partition(".")[0]
    if package in distributions:
        return ", ".join(sorted(set(distributions[package])))
    if package in sys.stdlib_module_names:
        return "Python"
    spec = PathFinder.find_spec(package)
    if spec is None:
        return ""
    locations = spec.submodule_search_locations or [spec.origin or "a namespace"]
    return str(next(iter(locations)))
