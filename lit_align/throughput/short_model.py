"""A model with the shapes of another one, random weights and few layers: quick to make, and to measure on."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from lit_align.models.layers import unquantized
from lit_align.models.load import Base, load_config, load_model

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedConfig, PreTrainedModel


def short_config(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """The configuration of a model's first layers.

    Args:
        config: of the whole model.
        layers: how many are kept.

    Example:
        >>> from transformers import Qwen3Config
        >>> short = short_config(Qwen3Config(num_hidden_layers=4), 2)
        >>> short.num_hidden_layers, len(short.layer_types)
        (2, 2)
    """
    config = deepcopy(config)
    text = config.get_text_config()
    count = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == count:  # a setting of each layer
            setattr(text, name, value[:layers])
    text.num_hidden_layers = layers
    return config


def short_model(base: Base, layers: int, device: torch.device) -> PreTrainedModel:
    """The first layers of a base with random weights, stored and computed with as the base would be.

    Args:
        base: of which the configuration alone is read.
        layers: how many are kept.
        device: that computes.
    """
    from transformers import AutoModelForCausalLM

    config = unquantized(short_config(load_config(base), layers))
    auto_class: Any = AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as folder:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = auto_class.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
        del model
        return load_model(replace(base, path=folder, revision=None), device)
