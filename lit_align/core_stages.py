"""The stages, data modules and callbacks of the core, as a plugin: a YAML may name each of them."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from lit_align.hookspecs import Register, hookimpl


@hookimpl
def register_stages(register: Register) -> None:
    """Register the stages and callbacks in these packages."""
    from lightning.pytorch import Callback, LightningModule

    import lit_align.callbacks
    import lit_align.online
    import lit_align.rl
    import lit_align.stages

    packages = (lit_align.stages, lit_align.rl, lit_align.online, lit_align.callbacks)
    modules = []
    for package in packages:
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            modules.append(import_module(info.name))
    _register_own(register, modules, (Callback, LightningModule))


@hookimpl
def register_datamodules(register: Register) -> None:
    """Register what reads files, and what trains in rounds."""
    from lightning.pytorch import LightningDataModule

    from lit_align.data import datamodules, labelled_steps, rated_demonstrations
    from lit_align.online import datamodule

    modules = (datamodules, labelled_steps, rated_demonstrations, datamodule)
    _register_own(register, modules, (LightningDataModule,))


def _register_own(
    register: Register, modules: Sequence[ModuleType], bases: tuple[type, ...]
) -> None:
    """Register each class that one of the modules defines and that derives from one of ``bases``."""
    for module in modules:
        for cls in vars(module).values():
            is_own = isinstance(cls, type) and cls.__module__ == module.__name__
            if is_own and issubclass(cls, bases):
                register(cls)
