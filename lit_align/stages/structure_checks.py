"""Refuse settings that do not fit a model, from its configuration alone, before its weights are loaded."""

from __future__ import annotations

from lightning.pytorch import Trainer

from lit_align.models.adapter_set import require_checkpointing
from lit_align.models.adapters import check_adapter
from lit_align.models.inventory import adapted_layers
from lit_align.models.layers import model_without_weights, read_layers
from lit_align.models.load import Base, load_config
from lit_align.models.lora import Lora
from lit_align.models.sharding import require_lora, require_shardable
from lit_align.stages.sharded_base import is_sharded


def check_structure(
    base: Base, lora: Lora | str, gradient_checkpointing: bool, trainer: Trainer | None
) -> None:
    """Check that a model can be adapted, recomputed and divided as it is to be.

    Args:
        base: the model.
        lora: settings of a new adapter, or the folder of the one to start from.
        gradient_checkpointing: whether activations are recomputed.
        trainer: of the run, if there is one.

    Raises:
        ModelError: naming the model or its layer, and the setting.
    """
    model = model_without_weights(load_config(base))
    if gradient_checkpointing:
        require_checkpointing(model, base.path)
    layers = read_layers(model)
    if isinstance(lora, Lora):
        adapted_layers(layers, lora)
    if is_sharded(trainer):
        require_shardable(model, layers, base.path)
        if isinstance(lora, str):
            config = check_adapter(lora, base.path, base.revision)
            require_lora(config, f"the adapter in {lora!r}")
