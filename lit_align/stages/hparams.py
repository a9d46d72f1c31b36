"""Settings of a stage as plain values: saved in checkpoints, and compared with those of another run."""

from __future__ import annotations

from abc import ABCMeta
from dataclasses import fields, is_dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from lit_align.models.adapters import same_base

MODEL_PATHS = ("base.path", "init_adapter")


def plain_hparams(stage: type, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as plain values, which a checkpoint can hold without trusting whoever wrote it.

    A setting that cannot be written, such as an optimizer given as a lambda, is left out: loading uses its default.
    """
    hparams = {
        "_class_path": _class_path(stage),
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }
    for name, value in settings.items():
        plain = plain_value(value)
        if plain is not None or value is None:
            hparams[name] = plain
    return hparams


def describe_differences(settings: dict[str, Any], saved: dict[str, Any]) -> list[str]:
    """A phrase for each setting whose saved value means another model."""
    return [
        f"{name} was {saved[name]!r} and is {value!r}"
        for name, value in settings.items()
        if name in saved and not means_same_model(name, saved[name], value)
    ]


def plain_value(value: Any) -> Any:
    """A setting as YAML would hold it; None if it cannot."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(type(value), ABCMeta):  # one of several subclasses, such as an objective
        parameters = signature(type(value)).parameters
        settings = {
            name: plain_value(setting)
            for name, setting in vars(value).items()
            if name in parameters
        }
        return {"class_path": _class_path(type(value)), "init_args": settings}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_value(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, partial) and isinstance(value.func, type) and not value.args:
        return {"class_path": _class_path(value.func), "init_args": value.keywords}
    if isinstance(value, type):
        return {"class_path": _class_path(value), "init_args": {}}
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    return value if isinstance(value, str | int | float | dict) else None


def means_same_model(name: str, value: Any, other: Any) -> bool:
    """Whether two values of a setting are equal, or name the same model."""
    if name in MODEL_PATHS and value and other:
        return same_base(value, other)  # folders may have moved
    return bool(value == other)


def _class_path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
