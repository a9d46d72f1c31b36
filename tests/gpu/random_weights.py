"""Models with random weights, made on the device layer by layer: nothing is downloaded, saved or held twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import bitsandbytes as bnb
import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from lit_align.models.layers import model_without_weights, read_layers
from lit_align.models.load import Base, load_config
from lit_align.stages import language_model_stage


@contextmanager
def random_base_weights() -> Iterator[None]:
    """Within it, stages get random weights in place of those that their base's folder lacks."""
    with patch.object(language_model_stage, "load_model", load_random):
        yield


def load_random(
    base: Base,
    device: torch.device | None = None,
    causal: bool = True,
    memory: torch.device | None = None,
) -> PreTrainedModel:
    """A model with random weights in bfloat16 or NF4, otherwise as `lit_align.models.load.load_model` returns it.

    Args:
        base: its folder needs no weights.
        device: where they are made.
        causal: taken as True.
        memory: taken as ``device``.
    """
    config = load_config(base)
    if base.attention:
        config._attn_implementation = base.attention
    model: Any = random_model(config, device or torch.device("cuda"), base.quantization == "nf4")
    model.name_or_path = model.config._name_or_path = base.path
    model.loaded_as = base
    return model


@torch.no_grad()
def random_model(config: Any, device: torch.device, quantized: bool = True) -> PreTrainedModel:
    """A frozen model in eval mode, with the linear layers in NF4 that a loaded one would have in NF4."""
    torch.manual_seed(0)
    model: Any = model_without_weights(config)
    for layer in read_layers(model):
        if quantized and not layer.whole:
            linear = _nf4_linear(_random_weight(layer.shape, device, config.initializer_range))
            model.set_submodule(layer.path, linear)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                value = _random_weight(parameter.shape, device, config.initializer_range)
                setattr(module, name, nn.Parameter(value, requires_grad=False))
    model.tie_weights()
    # its frequencies are computed, not loaded, and the meta device has none
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config).to(device)
    if quantized:
        model.is_loaded_in_4bit = True
        model.config.quantization_config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return model.eval().requires_grad_(False)


def _random_weight(shape: tuple[int, ...], device: torch.device, std: float) -> torch.Tensor:
    """Ones for the scales of norms, and normal numbers for matrices."""
    weight = torch.ones(shape, dtype=torch.bfloat16, device=device)
    return weight if weight.dim() == 1 else weight.normal_(std=std)


def _nf4_linear(weight: torch.Tensor) -> bnb.nn.Linear4bit:
    packed, state = bnb.functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    out_features, in_features = weight.shape
    linear = bnb.nn.Linear4bit(
        in_features,
        out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
        device="meta",
    )
    linear.weight = bnb.nn.Params4bit(
        packed,
        requires_grad=False,
        quant_state=state,
        blocksize=64,
        quant_type="nf4",
        bnb_quantized=True,
        module=linear,
    )
    linear.quant_state = state
    linear.support_avx512bf16_for_cpu = False  # as load_model sets it
    return linear


@torch.no_grad()
def with_plain_weights(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A new model with the numbers that an NF4 model stands for, stored in ``dtype``."""
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    plain = type(model)(type(model.config)(**config)).to(model.device, dtype)
    stored = dict(model.named_modules())
    for name, module in plain.named_modules():
        source = stored[name]
        if isinstance(source, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(source.weight.data, source.weight.quant_state)
            module.weight.copy_(weight)
        else:
            for key, parameter in module.named_parameters(recurse=False):
                parameter.copy_(getattr(source, key))
    return plain.eval().requires_grad_(False)
