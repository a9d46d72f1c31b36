"""Names that a setting, a class or a command may have, for suggestions."""

from __future__ import annotations

import collections.abc
import inspect
import re
import typing
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from lit_align.plugins import CORE_COMMANDS, load_plugins

SECTIONS = ("trainer", "lora", "base", "kl", "critic", "entropy_bonus")
"""Sections whose class is always the same."""


def command_names() -> list[str]:
    """All commands of one word."""
    names = [name for name in load_plugins().commands if " " not in name]
    return [*CORE_COMMANDS, *names]


def fitting_names(key: str, before: str) -> list[str]:
    """Names of the classes that a setting may be: of a kind that plugins provide, those that are registered."""
    names = set()
    registered = dict(_registered_classes())
    for base in _base_classes(key, before):
        for cls in registered.get(base, []) or _subclasses(base):
            if not inspect.isabstract(cls) and not cls.__name__.startswith("_"):
                names.add(cls.__name__)
    return sorted(names)


def _registered_classes() -> Iterator[tuple[type, list[type]]]:
    """The base class of each kind that plugins provide, and its registered classes."""
    for registry in load_plugins().registries.values():
        yield registry.base, registry.classes()


def _base_classes(key: str, before: str) -> list[type]:
    """What the classes that a setting may be derive from; none if it is not known."""
    from lightning.pytorch import LightningDataModule, Trainer

    from lit_align.stages.base import Stage

    if key.startswith("trainer."):
        return _annotated_classes(Trainer, key.removeprefix("trainer."))
    owners = re.findall(r"Problem with given class_path '([\w.]+)'", before)
    if owners:
        return _annotated_classes(import_class(owners[-1]), key)
    if key in ("model", "data"):
        return [Stage if key == "model" else LightningDataModule]
    registries = load_plugins().registries.values()
    kinds = (key, key.removesuffix("s"))  # tasks is a list of them
    return [registry.base for registry in registries if registry.kind in kinds]


def _annotated_classes(cls: type, key: str) -> list[type]:
    """The classes in the annotation of a setting."""
    for parent in cls.__mro__[:-1]:
        init: Any = parent.__init__  # type: ignore[misc]
        if key in inspect.signature(init).parameters:
            try:
                return list(_classes_in(typing.get_type_hints(init)[key]))
            except (NameError, KeyError):  # types that are imported for the type checker only
                return []
    return []


def _classes_in(annotation: Any) -> Iterator[type]:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is collections.abc.Callable:
        arguments = arguments[-1:]  # what it returns
    for argument in arguments:
        yield from _classes_in(argument)
    if not arguments and inspect.isclass(annotation) and annotation.__module__ != "builtins":
        yield annotation


def all_names() -> list[str]:
    """Every short name that a YAML may use for a class."""
    from lightning.pytorch import LightningDataModule

    from lit_align.stages.base import Stage

    plugins = load_plugins()
    classes = [*plugins.load_stages(), *_subclasses(Stage), *_subclasses(LightningDataModule)]
    names = [cls.__name__ for cls in classes]
    for registry in plugins.registries.values():
        names += registry
    return names


def _subclasses(cls: type) -> Iterator[type]:
    children: list[type] = cls.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)


def settings_of_section(key: str) -> set[str]:
    """Settings at the level of a key: of the trainer, or of one of `SECTIONS`; none for others."""
    section, *inner_keys = key.split(".")
    if section not in SECTIONS or not inner_keys:
        return set()  # without the imports
    from lightning.pytorch import Trainer

    from lit_align.models.load import Base
    from lit_align.models.lora import Lora
    from lit_align.rl.critic import Critic
    from lit_align.rl.entropy_bonus import EntropyBonus
    from lit_align.rl.kl_control import KLControl

    sections: dict[str, type] = {"trainer": Trainer, "lora": Lora, "base": Base}
    sections |= {"kl": KLControl, "critic": Critic, "entropy_bonus": EntropyBonus}
    return parameters_of(sections[section])


def parameters_of(cls: type) -> set[str]:
    """Names of the settings of a class, those of its parents included."""
    names: set[str] = set()
    for parent in cls.__mro__[:-1]:
        if "__init__" in vars(parent):
            names |= set(inspect.signature(vars(parent)["__init__"]).parameters)
    return names - {"self", "settings", "args", "kwargs"}


def import_class(path: str) -> type:
    """A class by the path in a message of the parser, which has imported it."""
    module, _, name = path.rpartition(".")
    cls: type = getattr(import_module(module), name)
    return cls
