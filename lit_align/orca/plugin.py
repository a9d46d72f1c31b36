"""The cross-modal extension as a plugin: embedders, a stage, its data, and ``lit-align evaluate cross-modal``."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from lit_align.hookspecs import Register, RegisterCommand, hookimpl
from lit_align.orca import hookspecs
from lit_align.plugins import PluginKind

__all__ = ["PLUGIN_KINDS", "hookspecs", "register_commands", "register_stages"]

PLUGIN_KINDS = {
    "register_embedders": PluginKind("embedder", "lit_align.orca.embedders", "Embedder"),
}


def evaluate_cross_modal(arguments: list[str]) -> None:
    """Compare ORCA with the same model trained in other ways."""
    from lit_align.cli.command import parse_settings
    from lit_align.orca import command

    settings, folder = parse_settings(
        "lit-align evaluate cross-modal", command.SETTINGS, arguments, command.refuse
    )
    command.run(settings, folder)


@hookimpl
def register_commands(register: RegisterCommand) -> None:
    """Add ``evaluate cross-modal``."""
    register(
        "evaluate cross-modal",
        evaluate_cross_modal,
        "whether aligning an embedder, or a language model at all, helps on other data than text",
    )


@hookimpl
def register_stages(register: Register) -> None:
    """Register the stage, its data modules, and the modalities and distances that their settings name."""
    from lightning.pytorch import LightningDataModule, LightningModule

    import lit_align.orca.modalities
    from lit_align.orca import datamodule, distances, stage

    modules = [datamodule, stage, distances]
    package = lit_align.orca.modalities
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        modules.append(import_module(info.name))
    bases = (LightningDataModule, LightningModule, distances.DatasetDistance, package.Modality)
    for module in modules:
        for cls in vars(module).values():
            is_own = isinstance(cls, type) and cls.__module__ == module.__name__
            if is_own and issubclass(cls, bases):
                register(cls)
