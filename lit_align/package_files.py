"""Files inside installed Python packages, named ``package:name/file``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lit_align.errors import LitAlignError


def resolve_package_path(path: str, error: type[LitAlignError]) -> str:
    """Path of the file behind ``package:name/file``; any other path is returned unchanged.

    The package's folder is found without importing the package.

    Raises:
        LitAlignError: of type ``error``, if the package is not installed.

    Example:
        >>> from lit_align.errors import DataError
        >>> resolve_package_path("data/train.csv", DataError)
        'data/train.csv'
        >>> resolve_package_path("package:nowhere/train.csv", DataError)
        Traceback (most recent call last):
        lit_align.errors.DataError: 'package:nowhere/train.csv' needs the package 'nowhere', which is not installed; ...
    """
    if not path.startswith("package:"):
        return path
    package, _, file = path.removeprefix("package:").partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise error(
            f"{path!r} needs the package {package!r}, which is not installed; "
            f"run: pip install --no-deps {package.replace('_', '-')}"
        )
    return str(Path(spec.submodule_search_locations[0]) / file)
