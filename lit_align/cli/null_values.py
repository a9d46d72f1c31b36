"""Refuse ``null`` where a setting needs a value, and a value where it is a group of settings; the parser does not."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace

from lit_align.cli.loggers import LoggingTrainer
from lit_align.cli.parser_messages import REMEDIES, remedy_for
from lit_align.cli.setting_names import import_class
from lit_align.errors import ConfigError

WITHOUT_LIMIT = ("None", "Optional", "Any", "TypeVar")
"""Parts of an annotation that may mean that null is allowed."""


class _Setting(typing.NamedTuple):
    """A parameter of a class."""

    annotation: Any
    default: Any

    def allows_null(self) -> bool:
        if self.default is None or self.annotation is inspect.Parameter.empty:
            return True
        return any(word in str(self.annotation) for word in WITHOUT_LIMIT)


def refuse_nulls(config: Namespace) -> None:
    """Look through the parsed settings of a run.

    Raises:
        ConfigError: with the first setting that is null and may not be, or is no group of settings and should be.
    """
    trainer = config.get("trainer")
    if not isinstance(trainer, Namespace):
        raise ConfigError(
            f"trainer is {_shown(trainer)}, and is a group of settings; leave it out, or write them by name, as in "
            "trainer: {max_epochs: 1}"
        )
    for sentence in _faults_of_class(trainer, LoggingTrainer, "trainer"):
        raise ConfigError(sentence)
    for key in ("run", "save_every"):
        if config.get(key) is None:
            raise ConfigError(f"{key} is null, which it may not be; leave it out for the default")
    for key in ("model", "data"):
        for sentence in _faults(config.get(key), key):
            raise ConfigError(sentence)


def _faults(value: Any, path: str) -> Iterator[str]:
    """Sentences for the settings of the classes in a value."""
    if isinstance(value, list):
        for item in value:
            yield from _faults(item, path)
    elif isinstance(value, Namespace) and "class_path" in value:
        init_args = value.get("init_args")
        if isinstance(init_args, Namespace):
            yield from _faults_of_class(init_args, import_class(value.class_path), path)


def _faults_of_class(values: Namespace, cls: type, path: str) -> Iterator[str]:
    settings = _settings_of(cls)
    for name, value in vars(values).items():
        key, setting = f"{path}.{name}", settings.get(name)
        if setting is None:
            continue
        group = setting.annotation
        if dataclasses.is_dataclass(group) and isinstance(group, type):
            if not isinstance(value, Namespace):
                names = ", ".join(field.name for field in dataclasses.fields(group))
                yield (
                    f"{key} is {_shown(value)}, and is a group of settings; write some by name ({names}), or leave it "
                    "out"
                )
            elif "class_path" not in value:
                yield from _faults_of_class(value, group, key)
                continue
        elif value is None and not setting.allows_null():
            yield _null_sentence(key, setting)
        yield from _faults(value, key)


def _null_sentence(key: str, setting: _Setting) -> str:
    type_name = getattr(setting.annotation, "__name__", "")
    if type_name not in REMEDIES:
        words = re.findall(r"\w+", str(setting.annotation))
        type_name = next((word for word in words if word in REMEDIES), "value")
    remedy = remedy_for(type_name)
    if setting.default is inspect.Parameter.empty:
        return f"{key} is null, and has no default; {remedy}"
    return f"{key} is null, which it may not be; {remedy}, or leave it out for {setting.default}"


def _settings_of(cls: type) -> dict[str, _Setting]:
    """The parameters of a class and of its parents; those of the class itself come first."""
    settings: dict[str, _Setting] = {}
    for parent in cls.__mro__[:-1]:
        init: Any = vars(parent).get("__init__")
        if init is None:
            continue
        try:
            hints = typing.get_type_hints(init)
        except Exception:  # types that are imported for the type checker only
            hints = {}
        for name, parameter in inspect.signature(init).parameters.items():
            annotation = hints.get(name, parameter.annotation)
            settings.setdefault(name, _Setting(annotation, parameter.default))
    return settings


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)
