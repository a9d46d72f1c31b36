"""Installed packages that are plugins of lit_align, and the environment variables that choose among them."""

from __future__ import annotations

import os
import re
import warnings
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from lit_align.registry import closest_name

GROUP = "lit_align"


class InstalledPlugin(NamedTuple):
    """An installed package with an entry point.

    Args:
        name: of the package.
        version: of the package.
        entry_point: names the module with the hooks.
    """

    name: str
    version: str
    entry_point: EntryPoint


def installed_plugins() -> list[InstalledPlugin]:
    """Installed packages in the order of their names, as the environment variables choose them."""
    installed = sorted((_package_of(point), point) for point in entry_points(group=GROUP))
    names = {normalized(name) for (name, _), _ in installed}
    allowed, blocked = _listed("LIT_ALIGN_PLUGINS"), _listed("LIT_ALIGN_BLOCK")
    _warn_unknown("LIT_ALIGN_PLUGINS", allowed or set(), names)
    _warn_unknown("LIT_ALIGN_BLOCK", blocked or set(), names)
    chosen: list[InstalledPlugin] = []
    for (name, version), point in installed:
        is_allowed = allowed is None or normalized(name) in allowed
        if is_allowed and normalized(name) not in (blocked or set()):
            chosen.append(InstalledPlugin(name, version, point))
    return chosen


def _warn_unknown(variable: str, listed: set[str], installed: set[str]) -> None:
    """Warn of names in an environment variable that no installed plugin has."""
    for name in sorted(listed - installed):
        suggestion = closest_name(name, installed)
        hint = f"there are {', '.join(sorted(installed)) or 'none'}"
        if suggestion:
            hint = f"did you mean {suggestion}?"
        warnings.warn(
            f"{variable} names {name}, and no such plugin is installed; {hint}", stacklevel=4
        )


def _package_of(point: EntryPoint) -> tuple[str, str]:
    """Name and version of an entry point's package; a damaged installation may lack them."""
    package = point.dist
    if package is None or not (package.read_text("METADATA") or package.read_text("PKG-INFO")):
        return point.name, "unknown"
    return package.name, package.version


def _listed(variable: str) -> set[str] | None:
    """Names in an environment variable; None if it is not set."""
    value = os.environ.get(variable)
    if value is None:
        return None
    return {normalized(name) for name in value.split(",") if name.strip()}


def normalized(name: str) -> str:
    """A package's name as the index compares it.

    Example:
        >>> normalized(" Lit_Align.zoo ")
        'lit-align-zoo'
    """
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
