"""Write the YAML of a task that does not train on text: the labelling page, and data of other modalities."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import yaml

from lit_align.cli.init.options import (
    column_options,
    command_line,
    output_path,
    print_next,
    write_new,
)
from lit_align.cli.init.settings import as_comment, to_yaml
from lit_align.cli.tasks import Task
from lit_align.errors import ConfigError, DataError
from lit_align.package_files import packaged_folder

MODALITIES = {
    "Images": "orca_digits",
    "Series": "orca_ecg200",
    "Tables": "orca_landsat",
    "Waveforms": "orca_spoken_digits",
}
"""The packaged config of each modality."""

SUFFIXES = {".ts": "Series", ".tsv": "Series", ".csv": "Tables", ".zip": "Waveforms"}
"""Modalities whose files have a suffix of their own."""

LABEL_COMMENTS = {
    "store": "people, tasks and votes are in this file; make a copy of it with the page stopped",
    "ask": "compare two responses, rank all, rate each from 1 to 7, or thumbs for each",
    "annotators": "each gets a link of their own",
    "votes": "people that each task is shown to",
}


def write_other(task: Task, options: argparse.Namespace) -> None:
    """Write the YAML and print what to type next.

    Raises:
        ConfigError: if an option is missing.
        DataError: if there is no such file, or it cannot be read.
    """
    path = output_path(options, task)
    if not options.data:
        raise ConfigError(f"init {task.name} needs --data: {task.columns}")
    for name in column_options(options):
        raise ConfigError(f"init {task.name} takes no --{name}; rename the columns in the file")
    if task.name == "label":
        text, commands = _label(options, path), [f"lit-align label -c {path}"]
    else:
        text, commands = _orca(options, task), [f"lit-align fit -c {path}"]
    header = as_comment([commands[0], f"Written by: {command_line(task, options)}"])
    write_new(path, header + text)
    print(f"Wrote {path}.")
    print_next(commands)


def _label(options: argparse.Namespace, path: Path) -> str:
    from lit_align.cli.init.rows import describe_files
    from lit_align.cli.tasks import find_task

    print(describe_files(options.data, find_task("label")).text)
    settings = {
        "store": f"{path.stem}.db",
        "tasks": options.data,
        "ask": "compare",
        "annotators": ["ada", "bob", "eve"],
        "votes": 3,
    }
    return to_yaml(settings, LABEL_COMMENTS)


def _orca(options: argparse.Namespace, task: Task) -> str:
    if not options.base or len(options.data) > 1:
        raise ConfigError(f"init orca needs --base and one file after --data: {task.columns}")
    (file,) = options.data
    modality = options.modality or SUFFIXES.get(Path(file).suffix.lower())
    if modality is None:
        raise ConfigError(
            f"{file} may be of several modalities; give --modality, one of {', '.join(MODALITIES)}"
        )
    is_packaged_set = modality == "Images" and file == "digits"
    if not is_packaged_set and not Path(file).exists():
        raise DataError(f"there is no file {file} (looked in {Path.cwd()}); correct the path")
    if Path(file).suffix == ".csv":
        _check_target(file)
    config = packaged_folder("configs") / f"{MODALITIES[modality]}.yaml"
    settings: dict[str, Any] = yaml.safe_load(config.read_text("utf-8"))
    settings["run"] = "runs/orca"
    settings["model"]["init_args"]["base"] |= {"path": options.base, "dtype": "auto"}
    data = {"train": file, "modality": modality, "batch_size": 16}
    settings["data"]["init_args"] = data
    print(f"{file}: read as {modality}; the settings are those of {config.stem}, with this base")
    return to_yaml(
        settings, {"base": "its first layers, see layers", "train": "a fifth is held out"}
    )


def _check_target(file: str) -> None:
    """Refuse a table without the column that is predicted unless the settings name another."""
    with open(file, newline="", encoding="utf-8") as lines:
        columns = next(csv.reader(lines), [])
    if "target" not in columns:
        raise DataError(
            f"{file} has no column target, only {', '.join(columns)}; rename the one that is to be predicted"
        )
