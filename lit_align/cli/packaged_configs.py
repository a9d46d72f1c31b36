"""Configs that ship with the package: ``-c tiny/dpo`` finds one where the working folder has no such file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lit_align.errors import ConfigError
from lit_align.package_files import packaged_folder
from lit_align.registry import closest_name

COMMANDS = ("fit", "validate", "test", "predict", "inspect")
"""Commands whose ``-c`` takes a packaged config."""

SUFFIXES = ("", ".yaml")


def config_names() -> list[str]:
    """Names of all packaged configs, such as ``tiny/dpo``."""
    folder = packaged_folder("configs")
    paths = sorted(folder.rglob("*.yaml"))
    return [path.relative_to(folder).with_suffix("").as_posix() for path in paths]


def find_config(name: str) -> Path:
    """The YAML that ``-c name`` means: a file of that name, or else a packaged config.

    Raises:
        ConfigError: if there is neither.
    """
    candidates = [Path(name + suffix).expanduser() for suffix in SUFFIXES]
    is_absolute = candidates[0].is_absolute()
    if not is_absolute:
        folder = packaged_folder("configs")
        packaged = name.removeprefix("configs/")
        candidates += [folder / (packaged + suffix) for suffix in SUFFIXES]
    for path in candidates:
        if path.is_file():
            return path
    raise _no_config(name, is_absolute)


def resolve_configs(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line with the path of the file in place of each name after ``-c``.

    Args:
        arguments: with the command first; those of commands that do not train are returned unchanged.

    Raises:
        ConfigError: if a name is neither of a file nor of a packaged config.

    Example:
        >>> resolve_configs(["chat", "-c", "tiny/dpo"])
        ['chat', '-c', 'tiny/dpo']
    """
    if not arguments or arguments[0] not in COMMANDS:
        return list(arguments)
    return list(_resolved(arguments))


def _resolved(arguments: Sequence[str]) -> Iterator[str]:
    is_name = False
    for argument in arguments:
        if is_name:
            yield _resolve(argument)
        elif argument.startswith("--config="):
            yield "--config=" + _resolve(argument.removeprefix("--config="))
        elif argument.startswith("-c") and argument != "-c":
            yield "-c=" + _resolve(argument.removeprefix("-c").removeprefix("="))
        else:
            yield argument
        is_name = argument in ("-c", "--config")


def _resolve(value: str) -> str:
    """The path of a config; what the parser reads otherwise, such as settings written out or an address, stays."""
    if "\n" in value or ": " in value or "://" in value or value.startswith("{"):
        return value
    return value if Path(value).is_file() else str(find_config(value))


def _no_config(name: str, is_absolute: bool) -> ConfigError:
    """The error for a name without a file, with the closest ones, or else all packaged ones."""
    names = [] if is_absolute else config_names()
    stem = name.removesuffix(".yaml").removeprefix("configs/")
    folder = Path(name).expanduser().parent
    local = [str(file) for file in sorted(folder.glob("*.yaml"))] if folder.is_dir() else []
    here = closest_name(stem, [file.removesuffix(".yaml") for file in local])
    packaged = closest_name(stem, names) or _same_file_name(stem, names)
    close = list(dict.fromkeys(filter(None, (here and f"{here}.yaml", packaged))))
    hint = f"did you mean {' or '.join(close)}?" if close else "check the path after -c"
    if is_absolute:
        return ConfigError(f"there is no file {name}; {hint}")
    sentence = f"there is no file {name} (looked in {Path.cwd()}), nor a packaged config of that name; {hint}"
    return ConfigError(sentence if close else f"{sentence}\nPackaged configs: {_grouped(names)}")


def _same_file_name(name: str, names: Sequence[str]) -> str | None:
    """The config whose last part is closest to that of a name in another folder."""
    by_last = {config.rpartition("/")[2]: config for config in reversed(names)}
    closest = closest_name(name.rpartition("/")[2], by_last)
    return by_last[closest] if closest else None


def _grouped(names: Sequence[str]) -> str:
    """The names, with a line for each folder."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, last = name.rpartition("/")
        folders.setdefault(folder, []).append(last)
    lines = [", ".join(folders.pop("", []))]
    for folder, files in folders.items():
        lines.append(f"  {folder}/: {', '.join(files)}")
    return "\n".join(lines)
