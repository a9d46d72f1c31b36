"""Import the classes that a YAML may name without being a plugin: stages, data modules, callbacks, modalities."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import lit_align.callbacks
import lit_align.online
import lit_align.orca
import lit_align.orca.modalities
import lit_align.rl
import lit_align.stages
from lit_align.plugins import load_plugins


def import_settings_classes() -> None:
    """Load the plugins, and import every module that holds a stage, a data module or a callback."""
    load_plugins()
    packages = (
        lit_align.stages,
        lit_align.rl,
        lit_align.online,
        lit_align.callbacks,
        lit_align.orca,
    )
    for package in (*packages, lit_align.orca.modalities):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            import_module(module.name)
