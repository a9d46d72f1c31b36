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
    found = load_plugins().objectives.classes()
    entries = tomllib.loads((ZOO / "pyproject.toml").read_text())["project"]["entry-points"][
        "lit_align"
    ]
    for module in entries.values():
        import_module(module).register_objectives(found.append)
    return {cls.__name__: cls for cls in found}


def settings(name: str) -> dict:
    """What the objective's own YAML states."""
    text = (ROOT / f"configs/objectives/{name}.yaml").read_text()
    return yaml.safe_load(text)["model"]["init_args"]["objective"]


def made(given: dict) -> Objective:
    """The objective that a YAML describes."""
    arguments = dict(given.get("init_args", {}))
    if "objectives" in arguments:
        arguments["objectives"] = [made(one) for one in arguments["objectives"]]
    return classes()[given["class_path"]](**arguments)
