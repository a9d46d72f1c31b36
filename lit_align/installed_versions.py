"""Compare the packages that are installed with the versions that this one needs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import NamedTuple

from lit_align.errors import ConfigError

PACKAGE = "lit-align"
LOWER = (">=", ">", "==", "~=")


def check_versions(requirements: Iterable[str] | None = None) -> None:
    """Refuse packages that are too old, before one of their missing parts does; warn of those that are newer.

    Args:
        requirements: as in a package's metadata; those of this package if left out.

    Raises:
        ConfigError: that names each package that is too old, its version, the one that is needed, and the remedy.

    Example:
        >>> check_versions(["pluggy>=99"])
        Traceback (most recent call last):
        lit_align.errors.ConfigError: pluggy ... is installed, and lit_align needs pluggy>=99; pip install 'pluggy>=99'
    """
    old: list[Package] = []
    untested: list[Package] = []
    for package in unfitting_packages(own_requirements() if requirements is None else requirements):
        (old if package.is_old else untested).append(package)
    if old:
        found = " and ".join(f"{package.name} {package.version}" for package in old)
        lines = [package.requirement for package in old]
        verb = "is" if len(old) == 1 else "are"
        wanted = " ".join(f"'{line}'" for line in lines)
        raise ConfigError(
            f"{found} {verb} installed, and lit_align needs {' and '.join(lines)}; pip install {wanted}"
        )
    for package in untested:
        warnings.warn(
            f"{package.name} {package.version} is installed, and lit_align was tested with {package.requirement}",
            stacklevel=2,
        )


class Package(NamedTuple):
    """A package that does not fit: what is installed, what is needed, and whether it is too old."""

    name: str
    version: str
    requirement: str
    is_old: bool


def installed_version(package: str) -> str | None:
    """The version of a package; None if it is not installed.

    Example:
        >>> installed_version("a-package-that-nobody-has") is None
        True
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def own_requirements() -> list[str]:
    """What lit_align needs, as its metadata say; nothing in a source tree that is not installed."""
    try:
        return requires(PACKAGE) or []
    except PackageNotFoundError:
        return []


def unfitting_packages(requirements: Iterable[str]) -> Iterator[Package]:
    """The installed packages that are too old, or newer than what was tested.

    Args:
        requirements: as in a package's metadata.
    """
    from packaging.requirements import Requirement
    from packaging.version import Version

    for line in requirements:
        wanted = Requirement(line)
        if wanted.marker is not None:  # of an extra
            continue
        installed_text = installed_version(wanted.name)
        if installed_text is None:
            continue  # importing it says so
        installed = Version(installed_text)
        if wanted.specifier.contains(installed, prereleases=True):
            continue
        lower = [part for part in wanted.specifier if part.operator in LOWER]
        is_old = not all(part.contains(installed, prereleases=True) for part in lower)
        requirement = f"{wanted.name}{wanted.specifier}"
        yield Package(wanted.name, str(installed), requirement, is_old)
