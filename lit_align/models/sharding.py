"""Divide a frozen base among processes, layer by layer, so that it may be larger than one card.

Every process keeps a share of the weights of each decoder layer, and gathers a layer for as long as it computes with it
(FSDP2, https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html). What is trained stays whole on every
process, as do embeddings, head and last norm: gradients, clipping, optimizer and checkpoints are those of whole copies,
and the head's weight can be read outside of the model's forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lit_align.compat.peft import parameter_belongs_to
from lit_align.errors import ModelError
from lit_align.models.tree_check import backbone

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch.distributed.device_mesh import DeviceMesh

    from lit_align.compat.transformers_types import PreTrainedModel
    from lit_align.models.adapter_set import AdapterSet
    from lit_align.models.layers import Layer


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers of a causal language model; empty if its backbone has no list of them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    for child in backbone(model).children():
        layers = list(child) if isinstance(child, nn.ModuleList) else []
        if layers and all(isinstance(layer, GradientCheckpointingLayer) for layer in layers):
            return layers
    return []


def require_shardable(model: PreTrainedModel, layers: Sequence[Layer], path: str) -> None:
    """Refuse a base that cannot be divided, from its structure alone.

    Args:
        model: without weights.
        layers: of the model, as `read_layers` finds them.
        path: of the model, for the message.

    Raises:
        ModelError: naming ``path`` and what to set.
    """
    if not decoder_layers(model):
        raise ModelError(
            f"{path!r} has no list of decoder layers, by which sharded_base divides a model; set trainer.strategy to "
            "ddp, with a base that fits on each card"
        )
    stored = getattr(model.config, "quantization_config", None)
    if stored is not None and not _is_four_bit(stored):
        raise ModelError(
            f"{path!r} is stored in {_quantization_name(stored)}, whose scales sharded_base would not divide with the "
            "weights; give the base that is not quantized, with base.quantization nf4 or none, or set "
            "trainer.strategy to ddp"
        )
    experts = [layer.name for layer in layers if not layer.in_module]
    if experts:
        raise ModelError(
            f"{path!r} has stacked weights of experts ({experts[0]}), which sharded_base does not divide; set "
            "trainer.strategy to ddp, with a base that fits on each card"
        )


def shard_base(adapters: AdapterSet, mesh: DeviceMesh) -> None:
    """Leave each process its share of the base's decoder layers, on its device; called by all of them.

    Args:
        adapters: on a base whose weights are the same on every process; adapters and what is not divided are on the
            mesh's device already or are moved there by the caller.
        mesh: of all processes, in one dimension.

    Raises:
        ModelError: if an adapter reads the weight that it adapts, as DoRA does.
    """
    from torch.distributed.fsdp import fully_shard

    for role in adapters.names:
        if adapters.has_adapter(role):
            require_lora(adapters.lora_config(role), f"the adapter of the {role}")
    model = adapters.model
    _keep_quant_states(model, torch.device(mesh.device_type))
    layers = decoder_layers(model)
    shared = {weight for layer in layers for weight in layer.parameters()}
    whole = {weight for weight in model.parameters() if weight not in shared}
    for name, weight in model.named_parameters():
        if any(parameter_belongs_to(name, role) for role in adapters.names):
            whole.add(weight)
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    # the common root, without weights of its own, by which layers are gathered ahead of their turn
    fully_shard(backbone(model), mesh=mesh, reshard_after_forward=True, ignored_params=whole)


def require_lora(config: LoraConfig, name: str) -> None:
    """Refuse an adapter that reads the weight that it adapts.

    Args:
        config: of the adapter.
        name: what it is called in the message.

    Raises:
        ModelError: if it is a DoRA.
    """
    if config.use_dora:
        raise ModelError(
            f"{name} is a DoRA, which reads the weights that sharded_base divides; set trainer.strategy to ddp, with a "
            "base that fits on each card"
        )


def _is_four_bit(stored: Any) -> bool:
    """Whether weights are stored by bitsandbytes in 4 bits, whose scales each layer keeps."""
    return bool(_setting(stored, "load_in_4bit"))


def _quantization_name(stored: Any) -> str:
    method = _setting(stored, "quant_method")
    return "8 bits" if _setting(stored, "load_in_8bit") else str(getattr(method, "value", method))


def _setting(stored: Any, name: str) -> Any:
    """A setting of a quantization, which a configuration file gives as a dictionary."""
    return stored.get(name) if isinstance(stored, dict) else getattr(stored, name, None)


def _keep_quant_states(model: nn.Module, device: torch.device) -> None:
    """Let each 4-bit layer keep the scales of its weight: a gathered weight comes without them."""
    for module in model.modules():
        state: Any = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            state.to(device)  # in place
            module.quant_state = state
