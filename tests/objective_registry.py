"""Every objective of the project: the built-in ones, and the packaged ones straight from their folder."""

import sys
import tomllib
from importlib import import_module
from pathlib import Path

import yaml

from lit_align.objectives.base import Objective
from lit_align.plugins import load_plugins

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "plugins/lit-align-zoo"


def classes() -> dict[str, type[Objective]]:
    """By name; importing the packaged ones lets a YAML name them, as installing them would."""
    if str(ZOO) not in sys.path:
        sys.path.append(str(ZOO))
    registered = load_plugins().objectives.classes()
    entries = tomllib.loads((ZOO / "pyproject.toml").read_text())["project"]["entry-points"][
        "lit_align"
    ]
    for module in entries.values():
        register = getattr(import_module(module), "register_objectives", None)
        if register is not None:  # some bring advantages
            register(registered.append)
    return {cls.__name__: cls for cls in registered}


def settings(name: str) -> dict:
    """What the objective's own YAML states."""
    text = (ROOT / f"configs/objectives/{name}.yaml").read_text()
    return yaml.safe_load(text)["model"]["init_args"]["objective"]


def build(block: dict) -> Objective:
    """The objective that a YAML describes."""
    arguments = dict(block.get("init_args", {}))
    if "objectives" in arguments:
        arguments["objectives"] = [build(part) for part in arguments["objectives"]]
    return classes()[block["class_path"]](**arguments)
