"""Refuse settings that an objective would take over from another one.

jsonargparse keeps what an earlier YAML gave to the old class where the new one has a setting of that name: with
``beta: 0.1`` for DPO underneath, SimPO would train with 0.1 instead of its own 2.0, without a word.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from lit_align.errors import ConfigError
from lit_align.plugins import load_plugins

OPTION = re.compile(r"--model\.(?:init_args\.)?objective(?:\.(?:init_args\.)?(\w+))?$")


def refuse_inherited(args: list[str]) -> None:
    """Go through files and options as the parser will.

    Raises:
        ConfigError: if a setting was written for another objective than the one that will get it.
    """
    now, written = "", dict[str, tuple[str, str, Any]]()  # setting → (source, objective, value)
    for source, name, settings in _said(args):
        now = (name or now).rpartition(".")[2]
        written |= {key: (source, now, value) for key, value in settings.items()}
    if now not in load_plugins().objectives:
        return
    known = inspect.signature(load_plugins().objectives[now]).parameters
    for key, (source, objective, value) in written.items():
        if objective != now and key in known:
            raise ConfigError(
                f"{key} {value} was written for {objective} in {source}, and {now} would take it over; state {key} "
                f"together with {now}, as configs/objectives/{now}.yaml does"
            )


def _said(args: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What each file and option says of the objective, in order: where, its class if named, its settings."""
    words = [word for arg in args for word in (arg.split("=", 1) if arg.startswith("-") else [arg])]
    for option, value in pairwise(words):
        if option in ("-c", "--config") and Path(value).is_file():
            try:
                model = (yaml.safe_load(Path(value).read_text()) or {}).get("model") or {}
            except (yaml.YAMLError, AttributeError):
                continue  # the parser says it better
            model = model if isinstance(model, dict) else {}
            yield value, *_read(model.get("init_args", model).get("objective"))
        elif found := OPTION.match(option):
            name, settings = (
                _read(value) if found[1] in (None, "class_path") else ("", {found[1]: value})
            )
            yield option, name, settings


def _read(objective: Any) -> tuple[str, dict[str, Any]]:
    """Class and settings of what stands in a YAML or after an option."""
    if isinstance(objective, str) and objective.startswith("{"):
        try:
            objective = yaml.safe_load(objective)
        except yaml.YAMLError:
            return "", {}  # the parser says it better
    if isinstance(objective, dict):
        return str(objective.get("class_path", "")), dict(objective.get("init_args") or {})
    return str(objective or ""), {}
