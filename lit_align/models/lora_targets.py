"""Layers as the targets of a PEFT adapter: exactly the chosen ones, by short names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from lit_align.compat.peft import exact_targets
from lit_align.errors import ModelError
from lit_align.models.layers import Layer

if TYPE_CHECKING:
    from peft import LoraConfig


def shortest_names(chosen: Iterable[str], names: Iterable[str]) -> list[str]:
    """The shortest ends of names that mean the chosen among all ``names`` and no other.

    Example:
        >>> names = ["0.mlp.up", "1.mlp.up", "0.experts.up"]
        >>> shortest_names(names[:2], names)
        ['mlp.up']
    """
    wanted = set(chosen)
    others = set()
    for name in set(names) - wanted:
        others.update(_ends(name))
    shortest = {
        min((end for end in _ends(name) if end not in others), key=len, default=name)
        for name in wanted
    }
    return sorted(shortest)


def _ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def set_targets(
    config: LoraConfig, layers: Sequence[Layer], chosen: Sequence[Layer], pattern: str | None = None
) -> None:
    """Let PEFT adapt the chosen layers and no other; a pattern that means them is written as it is."""
    in_modules = [layer.name for layer in chosen if layer.in_module]
    parameters = [layer.name for layer in chosen if not layer.in_module]
    modules: set[str] = set()
    for layer in layers:
        parts = layer.name.split(".")
        # PEFT compares with every module, also those that only hold others.
        modules.update(".".join(parts[:end]) for end in range(1, len(parts) + 1))
    config.target_modules = pattern
    if pattern is None or parameters:
        config.target_modules = shortest_names(in_modules, modules)
    config.target_parameters = parameter_targets(layers, parameters) or None


def parameter_targets(layers: Sequence[Layer], parameters: Sequence[str]) -> list[str]:
    """The shortest names of parameters, of at least two parts: a last part such as weight is that of norms too."""
    names = [f"{layer.name}.weight" if layer.in_module else layer.name for layer in layers]
    last_parts = {name.rpartition(".")[2] for name in names}
    return shortest_names(parameters, [*names, *last_parts])


@contextmanager
def adapting(base: str, config: LoraConfig, layers: Sequence[Layer]) -> Iterator[None]:
    """While PEFT puts an adapter on ``base``: its targets are taken as they are if the model has such layers.

    Raises:
        ModelError: instead of PEFT's errors.
    """
    _sort_parameters(config, layers)
    conversion = exact_targets() if _has_targets(config, layers) else nullcontext()
    try:
        with conversion:
            yield
    except ValueError as error:
        raise ModelError(
            f"cannot put adapters on {base!r}: {error}; choose others by lora.targets"
        ) from error


def _sort_parameters(config: LoraConfig, layers: Sequence[Layer]) -> None:
    """One spelling for a set of parameters: PEFT takes two spellings for two sets, and refuses the second."""
    targets = config.target_parameters or []
    chosen = [
        layer
        for layer in layers
        if not layer.in_module and any(layer.is_called(target) for target in targets)
    ]
    if all(any(layer.is_called(target) for layer in chosen) for target in targets):
        names = [layer.name for layer in chosen]
        config.target_parameters = parameter_targets(layers, names) or None


def _has_targets(config: LoraConfig, layers: Sequence[Layer]) -> bool:
    """Whether the targets are layers of this model; adapters of older releases name experts one by one."""
    targets = config.target_modules or ()
    if isinstance(targets, str):
        return any(re.fullmatch(targets, layer.path) for layer in layers)
    return all(any(layer.is_called(target) for layer in layers) for target in targets)
