"""PEFT: choose the active adapter of a layer without moving ``requires_grad``, and adapt exactly the named layers.

PEFT's public switches (``set_adapter``, ``disable_adapter``) also decide which parameters are trained. Between a
forward pass and a checkpointed backward pass that makes the gradient wrong without an error.

PEFT also rewrites the targets of mixtures of experts, which older releases of transformers named otherwise: in some
families it drops dense layers from them, or doubles a rank.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer


def ignore_deprecated_name() -> None:
    """Be silent about ``is_gradient_checkpointing``, a name of transformers by which PEFT asks a model."""
    warnings.filterwarnings(
        "ignore",
        "`is_gradient_checkpointing` is deprecated",
        FutureWarning,
        r"transformers\.modeling_utils",
    )


def adapter_layers(model: nn.Module) -> list[BaseTunerLayer]:
    """The layers of ``model`` that have adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def switch_adapter(layers: list[BaseTunerLayer], adapter: str | None) -> None:
    """Let ``layers`` compute with one adapter, or without any (None)."""
    for layer in layers:
        layer._disable_adapters = adapter is None
        if adapter is not None:
            layer._active_adapter = [adapter]


def parameter_belongs_to(name: str, adapter: str) -> bool:
    """Whether the parameter called ``name`` is a LoRA weight of ``adapter``.

    Example:
        >>> parameter_belongs_to("layers.0.q_proj.lora_A.policy.weight", "policy")
        True
    """
    parts = name.split(".")
    return adapter in parts and any(part.startswith("lora_") for part in parts)


def merge_layer(layer: LoraLayer, adapter: str) -> None:
    """Add an adapter to the weight of a layer whose base has been dequantized.

    PEFT's layers around 4-bit weights would quantize the sum again; its plain one takes them as they are by now.
    """
    from peft.tuners.lora import Linear, ParamWrapper

    is_linear = isinstance(layer.get_base_layer(), nn.Linear)
    is_plain = is_linear and not isinstance(layer, ParamWrapper)
    merge: Any = Linear.merge if is_plain else type(layer).merge
    merge(layer, safe_merge=True, adapter_names=[adapter])


def rewritten_targets(config: LoraConfig, model: nn.Module) -> list[str]:
    """The target modules of an adapter that PEFT, left to itself, would take for something else in this model."""
    from peft.utils import transformers_weight_conversion

    convert = transformers_weight_conversion.convert_peft_config_for_transformers
    targets = config.target_modules or ()
    rewritten = []
    for target in [targets] if isinstance(targets, str) else sorted(targets):
        single: Any = copy.copy(config)
        single.target_modules = target if isinstance(targets, str) else {target}
        try:
            convert(single, model, None)
        except ValueError:  # a part of what older releases held apart
            rewritten.append(target)
        else:
            if single.target_modules not in (target, {target}):
                rewritten.append(target)
    return rewritten


@contextmanager
def exact_targets() -> Iterator[None]:
    """Let PEFT take the targets of an adapter as they are, inside."""
    from peft.utils import transformers_weight_conversion

    convert = transformers_weight_conversion.convert_peft_config_for_transformers
    transformers_weight_conversion.convert_peft_config_for_transformers = _keep_targets
    try:
        yield
    finally:
        transformers_weight_conversion.convert_peft_config_for_transformers = convert


def _keep_targets(*_: object, **__: object) -> None:
    """Convert nothing."""
