"""Add an adapter to the weights of its base, which becomes a model of transformers without PEFT's layers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from lit_align.compat.packed_experts import unpack
from lit_align.compat.peft import merge_layer
from lit_align.errors import ModelError
from lit_align.models.fused import unfuse
from lit_align.models.layers import copy_without_weights
from lit_align.models.lora_targets import unwrapped_name

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

    from lit_align.compat.transformers_types import PreTrainedModel
    from lit_align.models.adapter_set import AdapterSet

ADAPTER_ALONE = "export the adapter alone"


@torch.no_grad()
def merge_weights(adapters: AdapterSet, role: str) -> PreTrainedModel:
    """The base with ``role`` added to its weights, dequantized.

    Args:
        adapters: the base and its adapters; cannot be used afterwards.
        role: adapter to merge.

    Raises:
        ModelError: if a weight cannot be dequantized, or takes no adapter, or is shared with another layer.
    """
    from peft.tuners.lora import LoraLayer

    with adapters.activate(role, training=False) as base:
        model: Any = base
    unfuse(model)
    structure = copy_without_weights(model)
    _dequantize(model, adapters.base)
    shared = _shared_weights(model)
    layers = [item for item in model.named_modules() if isinstance(item[1], LoraLayer)]
    for name, layer in layers:
        _merge(layer, role, name, shared)
    for name, layer in layers:
        if not name.endswith(".base_layer"):  # a wrapper of one parameter can hold that of another
            model.set_submodule(name, layer.get_base_layer())
    _restore_conv1d(model, structure)
    return cast("PreTrainedModel", model)


def _dequantize(model: Any, base: str) -> None:
    unpack(model)
    if getattr(model, "hf_quantizer", None) is None:
        return
    try:
        model.dequantize(dtype=model.dtype)
    except NotImplementedError as error:
        raise ModelError(
            f"the weights of {base!r} cannot be dequantized, so nothing can be merged into them; {ADAPTER_ALONE}"
        ) from error


def _shared_weights(model: nn.Module) -> set[int]:
    """Identities of the weights that more than one layer computes with."""
    weights = model.named_parameters(remove_duplicate=False)
    uses = Counter(id(weight) for _, weight in weights)
    return {identity for identity, count in uses.items() if count > 1}


def _merge(layer: LoraLayer, role: str, name: str, shared: set[int]) -> None:
    """Merge one layer.

    Raises:
        ModelError: instead of PEFT's errors.
    """
    layers: Any = (layer.lora_A, layer.lora_embedding_A)
    if not any(role in adapters for adapters in layers):
        return
    own_name = unwrapped_name(name)
    parameter = getattr(layer, "parameter_name", "weight")
    weight: Any = getattr(layer.get_base_layer(), parameter, None)
    if id(weight) in shared:
        raise ModelError(
            f"the weight of {own_name} is shared with another layer, which merging would change too; {ADAPTER_ALONE}"
        )
    remedy = ADAPTER_ALONE
    if parameter != "weight":
        own_name = f"{own_name}.{parameter}"
        remedy += ", or train one without the experts (lora.adapt_experts: false)"
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        kind = weight.dtype if isinstance(weight, torch.Tensor) else type(weight).__name__
        raise ModelError(
            f"{own_name} is stored as {kind}, to which no adapter can be added; {remedy}"
        )
    try:
        merge_layer(layer, role)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the adapter on {own_name} cannot be merged: {str(error).rstrip('.')}; {remedy}"
        ) from error


def _restore_conv1d(model: nn.Module, structure: nn.Module) -> None:
    """Layers of GPT-2 hold transposed weights; dequantized, they come back as linear layers and would not load."""
    from transformers.pytorch_utils import Conv1D

    for name, module in structure.named_modules():
        current = model.get_submodule(name)
        if not isinstance(module, Conv1D) or not isinstance(current, nn.Linear):
            continue
        with torch.device("meta"):
            restored: Any = Conv1D(current.out_features, current.in_features)  # type: ignore[no-untyped-call]
        restored.weight = nn.Parameter(current.weight.T.contiguous(), requires_grad=False)
        restored.bias = current.bias
        model.set_submodule(name, restored)
