"""The stages, data modules, callbacks and judge models of the core, as a plugin: a YAML may name each of them."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from lit_align.hookspecs import Register, hookimpl


@hookimpl
def register_stages(register: Register) -> None:
    """Register every class of these packages that Lightning runs, and the judge models."""
    from lightning.pytorch import Callback, LightningDataModule, LightningModule

    import lit_align.callbacks
    import lit_align.judges
    import lit_align.online
    import lit_align.rl
    import lit_align.stages
    from lit_align.data import datamodules
    from lit_align.judges.base import JudgeModel

    bases = (Callback, LightningDataModule, LightningModule, JudgeModel)
    packages = (
        lit_align.stages,
        lit_align.rl,
        lit_align.online,
        lit_align.callbacks,
        lit_align.judges,
    )
    modules = [datamodules]
    for package in packages:
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            modules.append(import_module(info.name))
    for module in modules:
        for cls in vars(module).values():
            is_own = isinstance(cls, type) and cls.__module__ == module.__name__
            if is_own and issubclass(cls, bases):
                register(cls)
