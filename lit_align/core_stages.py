"""The stages, data modules and callbacks of the core, as a plugin: a YAML may name each of them."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from lit_align.hookspecs import Register, hookimpl


@hookimpl
def register_stages(register: Register) -> None:
    """Register every class of these packages that Lightning runs."""
    from lightning.pytorch import Callback, LightningDataModule, LightningModule

    import lit_align.callbacks
    import lit_align.online
    import lit_align.rl
    import lit_align.stages
    from lit_align.data import datamodules

    modules = [datamodules]
    for package in (lit_align.stages, lit_align.rl, lit_align.online, lit_align.callbacks):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            modules.append(import_module(info.name))
    for module in modules:
        for cls in vars(module).values():
            is_own = isinstance(cls, type) and cls.__module__ == module.__name__
            if is_own and issubclass(cls, (Callback, LightningDataModule, LightningModule)):
                register(cls)
