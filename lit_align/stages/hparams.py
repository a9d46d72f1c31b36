"""Settings of a stage as plain values, which a checkpoint holds and another run is compared with."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from lit_align.advantages import Advantage
from lit_align.models.adapters import same_base
from lit_align.objectives import Objective
from lit_align.orca.distances import DatasetDistance
from lit_align.orca.embedders import Embedder
from lit_align.rewards import Reward


def alike(name: str, one: Any, other: Any) -> bool:
    """Whether two values of a setting mean the same model; folders may have moved."""
    if name in ("base.path", "init_adapter") and one and other:
        return same_base(one, other)
    return bool(one == other)


def written(stage: type, given: dict[str, Any]) -> dict[str, Any]:
    """Settings as plain values, which a checkpoint may hold without being trusted.

    One that cannot be written, such as an optimiser given as a lambda, is left out: who loads gets its default.
    """
    plain = {name: _plain(value) for name, value in given.items()}
    kept = {
        name: value for name, value in plain.items() if value is not None or given[name] is None
    }
    return {
        "_class_path": _path(stage),
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
        **kept,
    }


def differences(mine: dict[str, Any], wrote: dict[str, Any]) -> list[str]:
    """What a checkpoint was made with and is not so here, in words."""
    return [
        f"{name} was {wrote[name]!r} and is {value!r}"
        for name, value in mine.items()
        if name in wrote and not alike(name, wrote[name], value)
    ]


def _plain(value: Any) -> Any:
    """A setting as it would stand in a YAML; None if it cannot."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Objective | Reward | Advantage | DatasetDistance | Embedder):
        given = {
            name: _plain(of)
            for name, of in vars(value).items()
            if name in signature(type(value)).parameters
        }
        return {"class_path": _path(type(value)), "init_args": given}
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, partial) and isinstance(value.func, type) and not value.args:
        return {"class_path": _path(value.func), "init_args": value.keywords}
    if isinstance(value, type):
        return {"class_path": _path(value), "init_args": {}}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | float | dict) else None


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
