"""Options of ``lit-align init``, and what is refused before anything heavy is imported."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_align.cli.tasks import EXAMPLE, Task, objective_settings
from lit_align.errors import ConfigError

DESCRIPTION = (
    "Without a task: list the tasks. With one: write a YAML whose settings fit the model, the data and the GPU, and "
    "print why each was chosen. Nothing is overwritten."
)


def output_path(options: argparse.Namespace, task: Task) -> Path:
    """The file to write.

    Raises:
        ConfigError: if it exists.
    """
    path = Path(options.output or f"{task.name}.yaml")
    if path.exists():
        raise ConfigError(
            f"{path} exists, and nothing is overwritten; name another file with --output"
        )
    return path


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, with its folder.

    Raises:
        ConfigError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; choose another place"
        ) from error


def command_line(task: Task, options: argparse.Namespace) -> str:
    """The command that writes the same file again."""
    words = [f"lit-align init {task.name}"]
    for name in ("base", "data", "validation", "card", "size", "objective", "reward", "modality"):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name}", *map(_quoted, value if isinstance(value, list) else [value])]
    for name, value in column_options(options).items():
        words += [f"--{name}", _quoted(json.dumps(value, ensure_ascii=False))]
    return " ".join(words)


def column_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options about columns that were given, as the settings of ``data`` have them."""
    given = {name: getattr(options, name) for name in ("columns", "ignore_columns")}
    return {name: value for name, value in given.items() if value is not None}


def _columns(text: str) -> dict[str, str]:
    value = _parse_yaml(text)
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise argparse.ArgumentTypeError(
            f"{text!r} names no columns; write '{{prompt: question}}', with your column on the right"
        )
    return value


def _ignored(text: str) -> list[str]:
    value = _parse_yaml(text)
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise argparse.ArgumentTypeError(f"{text!r} names no columns; write '[source, id]'")
    return names


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _quoted(value: object) -> str:
    return shlex.quote(f"{value:g}" if isinstance(value, float) else str(value))


def check_options(task: Task, options: argparse.Namespace) -> None:
    """Refuse options of a task that trains on text.

    Raises:
        ConfigError: if one is missing or does not go with the task.
    """
    missing = [f"--{name}" for name in ("base", "data") if not getattr(options, name)]
    if missing:
        raise ConfigError(
            f"init {task.name} needs {' and '.join(missing)}: a model, and rows with {task.columns}, as in {EXAMPLE}"
        )
    output_path(options, task)
    if options.objective:
        objective_settings(task, options.objective)
    if options.reward and not task.needs_reward:
        raise ConfigError(f"--reward is {options.reward!r}, and {task.name} has none; leave it out")
    if options.card is not None and options.card <= 0:
        raise ConfigError(
            f"--card is {options.card:g}; it is the memory of a GPU in GiB, such as 24"
        )


def init_parser() -> argparse.ArgumentParser:
    """The options of all tasks together."""
    parser = argparse.ArgumentParser(
        "lit-align init", allow_abbrev=False, description=DESCRIPTION, epilog=f"Example: {EXAMPLE}"
    )
    parser.add_argument(
        "task", nargs="?", metavar="TASK", help="what to start; left out, all tasks are listed"
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="of a new plugin, such as lit-align-contrastive"
    )
    parser.add_argument(
        "--base", metavar="MODEL", help="hub id, folder, GGUF file or package:name/file"
    )
    parser.add_argument("--data", nargs="+", metavar="FILE", help="files, or data sets on the hub")
    _add_columns(parser)
    parser.add_argument("--validation", nargs="+", metavar="FILE", help="the same to validate on")
    parser.add_argument(
        "--card",
        type=float,
        metavar="GIB",
        help="memory of the GPU; that of this machine's, or 24, if left out",
    )
    parser.add_argument(
        "--size",
        type=float,
        metavar="BILLIONS",
        help="parameters of the base, if its config cannot be read",
    )
    parser.add_argument(
        "--objective", metavar="NAME", help="another loss on the same data, such as SimPO"
    )
    parser.add_argument(
        "--reward",
        metavar="REWARD",
        help="for tasks with a reward: a reward model's adapter folder, or a name",
    )
    parser.add_argument(
        "--modality",
        choices=("Images", "Series", "Tables", "Waveforms"),
        help="of the file that orca trains on, if its name does not say it",
    )
    parser.add_argument(
        "--kind",
        choices=("objective", "reward"),
        default="objective",
        help="of a new plugin (default: objective)",
    )
    parser.add_argument("--output", metavar="FILE", help="the YAML to write (default: TASK.yaml)")
    return parser


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--columns",
        "--data.columns",
        dest="columns",
        type=_columns,
        metavar="MAPPING",
        help="your column for each that is read under another name: '{prompt: question}'",
    )
    parser.add_argument(
        "--ignore_columns",
        "--data.ignore_columns",
        dest="ignore_columns",
        type=_ignored,
        metavar="LIST",
        help="columns that are not to be read: '[source, id]'",
    )


def print_next(commands: Sequence[str]) -> None:
    """Print what to type next."""
    for index, command in enumerate(commands):
        print(f"{'      ' if index else 'Next: '}{command}")
