"""Which layers have a fused form: those whose forward pass is, instruction by instruction, one that is known.

Families of transformers repeat each other's layers word for word under other names. A layer is recognized by the
compiled code of its class, not by its name: a family whose layer does anything else is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from lit_align.compat.modules import has_hooks, is_replaced
from lit_align.compat.quant_states import quant_state
from lit_align.models.fused.projections import Projection


def same_code(function: Callable[..., Any], known: Callable[..., Any]) -> bool:
    """Whether two functions have the same instructions, names and constants, docstrings aside.

    Example:
        >>> def double(x):
        ...     return 2 * x
        >>> def twice(x):
        ...     "Doc."
        ...     return 2 * x
        >>> same_code(double, twice), same_code(double, abs)
        (True, False)
    """
    return bool(_code_key(function) == _code_key(known))


def _code_key(function: Callable[..., Any]) -> Any:
    code = getattr(function, "__code__", None)
    if code is None or code.co_freevars:
        return function
    constants = list(code.co_consts)
    if constants and constants[0] == function.__doc__:
        constants[0] = None  # a function without a docstring has None there
    defaults = function.__defaults__, function.__kwdefaults__
    return code.co_code, code.co_names, code.co_varnames, repr(constants), repr(defaults)


@lru_cache(maxsize=256)
def norm_kind(module_class: type[nn.Module]) -> str | None:
    """``llama`` or ``gemma`` where a class normalizes as theirs do, else None."""
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    forward = module_class.forward
    if same_code(forward, LlamaRMSNorm.forward):
        return "llama"
    inner = getattr(module_class, "_norm", None)
    if inner is None or not same_code(inner, Gemma2RMSNorm._norm):
        return None
    return "gemma" if same_code(forward, Gemma2RMSNorm.forward) else None


@lru_cache(maxsize=256)
def is_gated_mlp(module_class: type[nn.Module]) -> bool:
    """Whether a class computes ``down_proj(act_fn(gate_proj(x)) * up_proj(x))``."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    return same_code(module_class.forward, LlamaMLP.forward)


@lru_cache(maxsize=256)
def rotates_halves(module_class: type[nn.Module]) -> bool:
    """Whether the forward pass of an attention layer calls a rotary embedding that rotates halves of whole heads."""
    from transformers.models.llama import modeling_llama

    forward = module_class.forward
    code = getattr(forward, "__code__", None)
    if code is None or code.co_freevars or "apply_rotary_pos_emb" not in code.co_names:
        return False
    rotary = forward.__globals__.get("apply_rotary_pos_emb", abs)
    if not same_code(rotary, modeling_llama.apply_rotary_pos_emb):
        return False
    return same_code(rotary.__globals__.get("rotate_half", abs), modeling_llama.rotate_half)


def is_lora_linear(layer: nn.Module) -> bool:
    """Whether a layer is PEFT's for a linear layer, in 4 bits or not, and no other tuner's or parameter's."""
    return type(layer) in _lora_classes()


def adapter_obstacle(layer: Any, role: str) -> str | None:
    """Why the adapter of a role is left to PEFT, as far as the layer tells before it runs; None if it is fused."""
    if not is_lora_linear(layer):
        return f"{type(layer).__name__} is no linear layer with an adapter"
    if role in layer.lora_variant:
        return f"{type(layer.lora_variant[role]).__name__} is a variant of LoRA"
    if layer.lora_bias.get(role):
        return "its adapter has a bias"
    if role in layer.lora_dropout and _rate(layer.lora_dropout[role]):
        return "its adapter has dropout"
    base: Any = layer.get_base_layer()
    if not is_plain_linear(base):
        return f"its base is a {type(base).__name__}"
    return None


def _rate(dropout: nn.Module) -> float:
    """The rate of a dropout layer; 0 of a layer that stands in its place."""
    rate: float = vars(dropout).get("p", 0.0)
    return rate


def read_projection(layer: nn.Module, x: Tensor) -> Projection | None:
    """How a linear layer, with or without an adapter, computes at the moment; None if it is left to its own code.

    It is where the adapter is merged, has dropout in train mode, is a variant of LoRA or one of several, where a hook
    watches a part of the layer, under autocast, and where the base is not in the dtype of ``x``.
    """
    if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
        return None
    if not is_lora_linear(layer):
        return Projection(layer) if _can_compute(layer, x) else None
    lora_layer: Any = layer
    base = lora_layer.base_layer
    if lora_layer.merged or not _can_compute(base, x):
        return None
    if lora_layer.disable_adapters:
        return Projection(base)
    active = [name for name in lora_layer.active_adapters if name in lora_layer.lora_A]
    if not active:
        return Projection(base)
    (name, *others) = active
    if others or name in lora_layer.lora_variant or lora_layer.lora_bias.get(name):
        return None
    dropout = lora_layer.lora_dropout[name]
    if layer.training and _rate(dropout):
        return None
    parts = (lora_layer.lora_A[name], lora_layer.lora_B[name], dropout)
    if any(has_hooks(part) for part in parts):
        return None
    return Projection(base, parts[0].weight, parts[1].weight, lora_layer.scaling[name])


def is_plain_linear(base: nn.Module) -> bool:
    """Whether a layer computes the product with its weight and no more: in 4 bits, transposed, or as torch's."""
    return type(base) in _linear_classes() and not is_replaced(base)


def _can_compute(base: nn.Module, x: Tensor) -> bool:
    if not is_plain_linear(base) or has_hooks(base):
        return False
    weight: Any = base.weight
    if any(parameter.requires_grad for parameter in base.parameters(recurse=False)):
        return False
    if quant_state(base) is not None:
        is_repacked = getattr(base, "support_avx512bf16_for_cpu", False)  # without a gradient
        return not is_repacked and getattr(base, "compute_dtype", None) in (None, x.dtype)
    return bool(weight.dtype == x.dtype)


@lru_cache(maxsize=1)
def _linear_classes() -> tuple[type[nn.Module], ...]:
    from bitsandbytes.nn import Linear4bit  # type: ignore[attr-defined]
    from transformers.pytorch_utils import Conv1D

    return nn.Linear, Linear4bit, Conv1D


@lru_cache(maxsize=1)
def _lora_classes() -> tuple[type[nn.Module], ...]:
    from peft.tuners.lora import Linear
    from peft.tuners.lora.bnb import Linear4bit

    return Linear, Linear4bit
