"""Stacked weights of experts in 4 bits: transformers loads them whole, and PEFT adds to whole weights alone.

A packed weight is a parameter of bytes under bitsandbytes' parametrization, which dequantizes it whenever it is read;
inside a forward pass of its module once. Transformers packs linear layers as it reads them; here stacked weights too,
so that a layer's experts are the most that is ever whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

SCALES = ("scale_inv", "scale", "scales", "blocks")
"""Ends of the names of what stands beside a weight that another method has quantized."""


class PackedWeight(NamedTuple):
    """A weight in 4 bits.

    Args:
        module: that computes with it.
        path: name of the module.
        name: of the parameter in the module.
    """

    module: nn.Module
    path: str
    name: str

    @property
    def dequantize(self) -> Any:
        """Bitsandbytes' parametrization, which holds shape, dtype and scales."""
        return self._parametrizations[0]

    def value(self) -> Tensor:
        """The weight, dequantized."""
        weight: Tensor = self.dequantize(self._parametrizations.original)
        return weight

    def placeholder(self) -> nn.Parameter:
        """A parameter of its shape, dtype and device that takes no memory, and whose values mean nothing."""
        state = self.dequantize.quant_state
        device = self._parametrizations.original.device
        number = torch.zeros(1, dtype=state.dtype, device=device)
        return nn.Parameter(number.expand(state.shape), requires_grad=False)

    @property
    def _parametrizations(self) -> Any:
        module: Any = self.module
        return module.parametrizations[self.name]


def packed_weights(model: nn.Module) -> list[PackedWeight]:
    """The weights of ``model`` in 4 bits that are no linear layers."""
    from bitsandbytes.nn.parametrize import Bnb4bitParametrization

    packed = []
    for path, module in model.named_modules():
        for name, chain in getattr(module, "parametrizations", {}).items():
            if isinstance(chain[0], Bnb4bitParametrization):
                packed.append(PackedWeight(module, path, name))
    return packed


@contextmanager
def packing_while_loading(names: Collection[str]) -> Iterator[None]:
    """Inside, transformers' quantizer also packs the parameters called ``names`` as it reads them."""
    if not names:
        yield
        return
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    quantizers: dict[str, Any] = AUTO_QUANTIZER_MAPPING
    kind = "bitsandbytes_4bit"
    usual = quantizers[kind]
    quantizers[kind] = _quantizer_for(frozenset(names))
    try:
        yield
    finally:
        quantizers[kind] = usual


def _quantizer_for(names: frozenset[str]) -> type:
    """Transformers' quantizer for linear layers and the parameters called ``names``."""
    from transformers.integrations.bitsandbytes import Bnb4bitQuantize
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    states: dict[str, Any] = {}

    class Pack(Bnb4bitQuantize):
        def convert(self, input_dict: Any, *args: Any, **options: Any) -> Any:
            stacked = names & input_dict.keys()
            others = {name: value for name, value in input_dict.items() if name not in stacked}
            converted: dict[str, Tensor] = {}
            if others:
                converted = super().convert(others, *args, **options)
            for name in stacked:
                value = input_dict[name]
                weight = value[0] if isinstance(value, list) else value
                settings = self.hf_quantizer.quantization_config
                converted[name], states[name] = _pack(weight, settings)
            return converted

    class ExpertsQuantizer(Bnb4BitHfQuantizer):
        def param_needs_quantization(self, model: Any, param_name: str, **options: Any) -> bool:
            if param_name in names:
                return True
            return bool(super().param_needs_quantization(model, param_name, **options))

        def get_quantize_ops(self) -> Any:
            return Pack(self)  # type: ignore[no-untyped-call]

        def _process_model_after_weight_loading(self, model: Any, **options: Any) -> Any:
            # in the order of the module, in which PEFT nests its layers and names their weights
            for name in [name for name, _ in model.named_parameters() if name in states]:
                _parametrize(model, name, states.pop(name))
            result = super()._process_model_after_weight_loading(model, **options)
            quantizer: Any = self
            quantizer.__class__ = Bnb4BitHfQuantizer  # which can be pickled
            return result

    return ExpertsQuantizer


def _pack(weight: Tensor, settings: Any) -> tuple[Tensor, Any]:
    from bitsandbytes.functional import quantize_4bit

    packed: tuple[Tensor, Any] = quantize_4bit(
        weight.to(settings.bnb_4bit_compute_dtype).contiguous(),
        compress_statistics=settings.bnb_4bit_use_double_quant,
        quant_type=settings.bnb_4bit_quant_type,
    )
    return packed


def _parametrize(model: nn.Module, name: str, state: Any) -> None:
    from bitsandbytes.nn.parametrize import replace_parameter_4bit_prequantized

    path, _, parameter = name.rpartition(".")
    module = model.get_submodule(path)
    module.get_parameter(parameter).requires_grad_(False)
    device = module.get_parameter(parameter).device
    replace_parameter_4bit_prequantized(module, parameter, state.as_dict(packed=True), device)
    parametrizations: Any = module.parametrizations
    dequantize = parametrizations[parameter][0]
    dequantize._apply = partial(_apply_with_scales, dequantize)


def _apply_with_scales(dequantize: Any, function: Any, recurse: bool = True) -> Any:
    """Let the scales of a packed weight follow it to another device, which bitsandbytes leaves out."""
    nn.Module._apply(dequantize, function, recurse)  # type: ignore[no-untyped-call]
    state = dequantize.quant_state
    state.to(function(state.code).device)
    return dequantize


def is_whole(model: nn.Module, name: str) -> bool:
    """Whether a parameter holds plain numbers: neither packed in another way nor beside scales of its own."""
    path, _, parameter = name.rpartition(".")
    module = model.get_submodule(path)
    weight = module._parameters.get(parameter)
    has_scales = any(hasattr(module, f"{parameter}_{end}") for end in SCALES)
    is_float = weight is not None and weight.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return is_float and not has_scales


@contextmanager
def whole_for_peft(model: nn.Module) -> Iterator[None]:
    """Inside, packed weights look whole to PEFT, which compares names, shapes and dtypes of parameters.

    Afterwards they are as before, and adapters add to them without packing or unpacking anything else.
    """
    from peft.tuners.lora import ParamWrapper

    hidden = []
    for packed in packed_weights(model):
        hidden.append((packed, packed.placeholder()))
    modules = {packed.module: type(packed.module) for packed, _ in hidden}
    chains = {module: module._modules.pop("parametrizations") for module in modules}
    for module in modules:
        module.__class__ = parametrize.type_before_parametrizations(module)
    for packed, parameter in hidden:
        packed.module.register_parameter(packed.name, parameter)
    try:
        yield
    finally:
        for packed, _ in hidden:
            del packed.module._parameters[packed.name]
        for module, parametrized in modules.items():
            module.__class__ = parametrized
            module._modules["parametrizations"] = chains[module]
    placeholders = {(packed.module, packed.name): parameter for packed, parameter in hidden}
    for layer in model.modules():
        if isinstance(layer, ParamWrapper):
            placeholder = placeholders.get((layer.get_base_layer(), layer.parameter_name))
            if placeholder is not None:
                _add_while_packed(layer, placeholder)


class _AddFactors(nn.Module):
    """Add the product of an adapter's factors to each expert's weight: ``W + scaling * left @ right``."""

    def __init__(self, left: Tensor, right: Tensor, scaling: float) -> None:
        super().__init__()
        self.left, self.right, self.scaling = left, right, scaling

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return torch.baddbmm(weight, self.left, self.right, alpha=self.scaling)


def _add_while_packed(layer: Any, placeholder: nn.Parameter) -> None:
    """Let one layer of PEFT add its adapter behind what dequantizes the weight, for the time of a forward pass.

    PEFT's own way leaves the adapter there for good if the weight has a parametrization already.
    """
    layer.get_param = _Placeholder(placeholder)
    layer._activate_lora = _Activation(layer)


class _Placeholder:
    """Gives PEFT a parameter of the weight's shape, dtype and device; unlike a closure it can be copied."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter

    def __call__(self) -> nn.Parameter:
        return self.parameter


class _Activation:
    """Adds the active adapters of one layer of PEFT behind what dequantizes its weight, in a context."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @contextmanager
    def __call__(self, active_adapters: list[str]) -> Iterator[None]:
        layer = self.layer
        active = [adapter for adapter in active_adapters if adapter in layer.lora_A]
        chain = layer.get_base_layer().parametrizations[layer.parameter_name]
        length = len(chain)
        chain.extend(_AddFactors(*layer.get_delta_factors(adapter)) for adapter in active)
        try:
            with parametrize.cached():
                yield
        finally:
            del chain[length:]


def unpack(model: nn.Module) -> None:
    """Dequantize all packed weights for good."""
    values = [(packed, packed.value()) for packed in packed_weights(model)]
    for module in {packed.module for packed, _ in values}:
        del module.parametrizations
        module.__class__ = parametrize.type_before_parametrizations(module)
    for packed, value in values:
        packed.module.register_parameter(packed.name, nn.Parameter(value, requires_grad=False))
    for layer in model.modules():
        for name in ("get_param", "_activate_lora"):
            vars(layer).pop(name, None)


def pack(model: nn.Module, names: Collection[str], settings: Any) -> None:
    """Pack parameters that were loaded whole.

    Args:
        model: that has them.
        names: of the parameters.
        settings: of transformers for bitsandbytes.
    """
    for name in names:
        path, _, parameter = name.rpartition(".")
        module = model.get_submodule(path)
        weight, state = _pack(module.get_parameter(parameter).data, settings)
        setattr(module, parameter, nn.Parameter(weight, requires_grad=False))
        _parametrize(model, name, state)
