"""Layers as the targets of a PEFT adapter: exactly the chosen ones, by short names."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from torch import nn

from lit_align.compat.packed_experts import whole_for_peft
from lit_align.compat.peft import exact_targets, rewritten_targets
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
    names = [_parameter_name(layer) for layer in layers]
    last_parts = {name.rpartition(".")[2] for name in names}
    return shortest_names(parameters, [*names, *last_parts])


def _parameter_name(layer: Layer) -> str:
    return f"{layer.name}.weight" if layer.in_module else layer.name


def _has_patterns(config: LoraConfig) -> bool:
    """Whether layers have a rank or alpha of their own, by patterns that fit a layer's name and not its weight's."""
    return bool(config.rank_pattern or config.alpha_pattern)


def unwrapped_name(name: str) -> str:
    """The name of a module in the base, without PEFT's layers around it.

    Example:
        >>> unwrapped_name("mlp.experts.base_layer.base_layer.act_fn")
        'mlp.experts.act_fn'
    """
    return name.replace(".base_layer", "")


def adapted_names(model: nn.Module, role: str) -> list[str]:
    """The layers, and parameters of larger modules, that have an adapter of this role."""
    from peft.tuners.lora import LoraLayer

    names = []
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and role in module.lora_A:
            parameter = getattr(module, "parameter_name", None)
            names.append(
                f"{unwrapped_name(name)}.{parameter}" if parameter else unwrapped_name(name)
            )
    return names


@contextmanager
def adapting(
    base: str, config: LoraConfig, layers: Sequence[Layer], model: nn.Module
) -> Iterator[None]:
    """While PEFT puts an adapter on ``model``: its targets are taken as they are if the model has such layers.

    Args:
        base: name of the model.
        config: of the adapter.
        layers: of the model.
        model: whose weights may be in 4 bits.

    Raises:
        ModelError: instead of PEFT's errors.
    """
    sort_targets(config, layers)
    conversion = exact_targets() if _has_targets(config, layers) else nullcontext()
    try:
        with conversion, whole_for_peft(model):
            yield
    except ValueError as error:
        raise ModelError(
            f"cannot put adapters on {base!r}: {error}; choose others by lora.targets"
        ) from error


def portable_config(
    config: LoraConfig, model: nn.Module, layers: Sequence[Layer], adapted: Collection[str]
) -> LoraConfig:
    """Settings by which PEFT adapts the same layers in a process of its own.

    In some mixtures of experts it takes the names of dense layers for those of experts in older releases of
    transformers. They are named by their weights there, which it leaves as they are and computes the same with.

    Args:
        config: of the adapter.
        model: its base.
        layers: of the base.
        adapted: names of the layers that the adapter is on.
    """
    if _has_patterns(config) or not rewritten_targets(config, model):
        return config
    config = copy.deepcopy(config)
    chosen = [layer for layer in layers if layer.name in adapted]
    set_targets(config, layers, chosen)
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    rewritten = rewritten_targets(config, model)
    named_by_weight = []
    for layer in chosen:
        if not layer.in_module or any(layer.is_called(target) for target in rewritten):
            named_by_weight.append(_parameter_name(layer))
    config.target_modules = sorted(set(config.target_modules or ()) - set(rewritten))
    config.target_parameters = parameter_targets(layers, named_by_weight)
    config.lora_dropout = 0.0  # which PEFT does not apply to adapters on parameters
    return config


def sort_targets(config: LoraConfig, layers: Sequence[Layer]) -> None:
    """One spelling for a set of parameters: PEFT takes two spellings for two sets, and refuses the second.

    Weights of linear layers are adapted as layers, which have dropout and can be stored in 4 bits.
    """
    targets = config.target_parameters or []
    parameters = [layer for layer in layers if _is_called(layer, targets)]
    if not all(any(_is_called(layer, [target]) for layer in parameters) for target in targets):
        return
    has_linear = any(layer.in_module for layer in parameters) and not _has_patterns(config)
    if not has_linear:
        names = [_parameter_name(layer) for layer in parameters]
        config.target_parameters = parameter_targets(layers, names) or None
    elif not isinstance(config.target_modules, str):
        modules = config.target_modules or ()
        named = [layer for layer in layers if any(layer.is_called(name) for name in modules)]
        set_targets(config, layers, [*named, *parameters])


def _is_called(layer: Layer, targets: Iterable[str]) -> bool:
    """Whether one of PEFT's target parameters is the weight of this layer, which an adapter can be put on."""
    if not layer.in_module:
        return any(layer.is_called(target) for target in targets)
    if layer.transposed or layer.obstacle or layer.kind in ("embedding", "other"):
        return False
    return any(f".{_parameter_name(layer)}".endswith(f".{target}") for target in targets)


def _has_targets(config: LoraConfig, layers: Sequence[Layer]) -> bool:
    """Whether the targets are layers of this model; adapters of older releases name experts one by one."""
    targets = config.target_modules or ()
    if isinstance(targets, str):
        return any(re.fullmatch(targets, layer.path) for layer in layers)
    return all(any(layer.is_called(target) for layer in layers) for target in targets)
