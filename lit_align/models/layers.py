"""The layers of a model, read from its structure: linear layers, experts, routers, and what an adapter cannot reach."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedConfig, PreTrainedModel

LayerKind = Literal["linear", "experts", "router", "embedding", "head", "other"]

WEIGHT_METADATA = ("dtype", "device", "shape", "size", "ndim")
"""Attributes of a weight that a model may read without computing with it."""


@dataclass(frozen=True)
class Layer:
    """One layer, or the stacked weights of one projection of all experts of a layer.

    Args:
        name: full name of the module; for stacked weights, of the parameter.
        kind: what it is for.
        shape: of its weight.
        in_module: whether the weight is that of a linear layer, convolution or embedding of its own, which an adapter
            can replace; otherwise it is a parameter of a larger module, which an adapter can only add to.
        obstacle: why no adapter can be put on it, if so.
        whole: why it is never stored in 4 bits, if so.
        transposed: whether rows of its weight are inputs, as in GPT-2.
    """

    name: str
    kind: LayerKind
    shape: tuple[int, ...]
    in_module: bool = True
    obstacle: str = ""
    whole: str = ""
    transposed: bool = False

    @property
    def numbers(self) -> int:
        """Numbers of its weight."""
        return math.prod(self.shape)

    def adapter_numbers(self, r: int) -> int:
        """Numbers of a LoRA adapter of rank ``r`` on it; each expert has its own.

        Example:
            >>> Layer("experts.down_proj", "experts", (8, 32, 16)).adapter_numbers(4)
            1536
        """
        *stacked, rows, columns = self.shape
        return r * math.prod(stacked) * (rows + columns)

    @property
    def path(self) -> str:
        """The name by which settings call it: that of the module, also where its weight is meant."""
        return self.name if self.in_module else self.name.removesuffix(".weight")

    def is_called(self, name: str) -> bool:
        """Whether ``name`` is its name, that of its module, or the last parts of one of them.

        Example:
            >>> layer = Layer("mlp.gate.weight", "router", (8, 32), in_module=False)
            >>> layer.is_called("gate"), layer.is_called("gate.weight"), layer.is_called("ate")
            (True, True, False)
        """
        return any(own == name or own.endswith(f".{name}") for own in (self.path, self.name))


def model_without_weights(config: PreTrainedConfig, causal: bool = True) -> PreTrainedModel:
    """A model of this configuration on the meta device, where it takes no memory.

    Args:
        config: the model's configuration.
        causal: whether it is loaded with its language-model head.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    auto_class: Any = AutoModelForCausalLM if causal else AutoModel
    with torch.device("meta"):
        model: PreTrainedModel = auto_class.from_config(unquantized(config))
    return model


def copy_without_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A loaded model as its configuration describes it, on the meta device: without adapters or 4-bit weights."""
    with torch.device("meta"):
        return type(model)(unquantized(model.config))


def unquantized(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy of a configuration whose weights are stored whole."""
    config = deepcopy(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def read_layers(model: PreTrainedModel) -> list[Layer]:
    """The layers of a model with weights of two or more dimensions, each weight once; neither quantised nor adapted."""
    from transformers.pytorch_utils import Conv1D

    reader = _Reader(model)
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            layers.append(reader.linear(name, module))
        elif isinstance(module, nn.Embedding):
            shape = tuple(module.weight.shape)
            layers.append(Layer(name, "embedding", shape, whole="an embedding is looked up"))
        elif isinstance(module, _ConvNd):
            shape = (module.weight.shape[0], math.prod(module.weight.shape[1:]))
            layers.append(Layer(name, "other", shape, whole="a convolution"))
        else:
            parameters = module.named_parameters(name, recurse=False)
            large = [item for item in parameters if item[1].dim() > 1]
            layers += [reader.parameter(full, weight) for full, weight in large]
    return layers


class _Reader:
    """Tells apart linear layers, experts and routers by the structure of the model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.modules = dict(model.named_modules())
        self.head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.full_precision = tuple(getattr(model, "_keep_in_fp32_modules", None) or ())
        self.tied = _tied_weights(model)
        self.expert_counts = set(_expert_counts(model.config.to_dict()))
        self.expert_lists = {
            name
            for name, module in self.modules.items()
            if isinstance(module, nn.ModuleList) and self._is_expert_list(name, module)
        }
        self.stack_holders = {
            name.rpartition(".")[0]
            for name, weight in model.named_parameters()
            if weight.dim() == 3 and weight.shape[0] in self.expert_counts
        }
        self.stack_holders -= {
            name for name, module in self.modules.items() if isinstance(module, _ConvNd)
        }
        mixtures = self.stack_holders | self.expert_lists
        self.mixtures = {name.rpartition(".")[0] for name in mixtures}

    def linear(self, name: str, module: nn.Module) -> Layer:
        """A linear layer."""
        is_transposed = not isinstance(module, nn.Linear)
        shape = tuple(module.get_parameter("weight").shape)
        layer = Layer(name, "linear", shape, transposed=is_transposed)
        if module is self.head:
            return replace(layer, kind="head", whole="the head")
        parent, _, attribute = name.rpartition(".")
        is_read = reads_weight(type(self.modules[parent]), attribute)  # type: ignore[arg-type]
        obstacle = whole = ""
        if _has_own_forward(module):
            obstacle = whole = f"{type(module).__name__} is more than a linear layer"
        elif is_read:
            obstacle = whole = "the model reads its weight past an adapter"
        elif f"{name}.weight" in self.tied:
            whole = "its weight is shared"
        elif set(self.full_precision) & set(name.split(".")):
            whole = "the model wants it in float32"
        if self._is_router(name):
            # An own forward pass reads ``self.weight``, to which an adapter can add.
            is_plain = not _has_own_forward(module)
            own_name = name if is_plain else f"{name}.weight"
            kept = "" if not is_read else obstacle
            return replace(
                layer,
                name=own_name,
                kind="router",
                in_module=is_plain,
                obstacle=kept,
                whole="a router",
            )
        kind: LayerKind = "linear"
        if any(name.startswith(f"{experts}.") for experts in self.expert_lists):
            kind = "experts"
        return replace(layer, kind=kind, obstacle=obstacle, whole=whole)

    def parameter(self, name: str, weight: Tensor) -> Layer:
        """A weight that is no layer of its own."""
        shape = tuple(weight.shape)
        if self._is_expert_stack(name, weight):
            return Layer(name, "experts", shape, in_module=False)
        module_name, _, attribute = name.rpartition(".")
        if attribute == "weight" and self._is_router(module_name):
            return Layer(name, "router", shape, in_module=False, whole="a router")
        return Layer(
            name,
            "other",
            shape,
            in_module=False,
            obstacle="it is no linear layer",
            whole="no layer",
        )

    def _is_expert_stack(self, name: str, weight: Tensor) -> bool:
        """One matrix for each expert: the only stacks of matrices beside convolutions and blocks of heads."""
        return weight.dim() == 3 and name.rpartition(".")[0] in self.stack_holders

    def _is_expert_list(self, name: str, module: nn.ModuleList) -> bool:
        return "expert" in name.rpartition(".")[2] and len(module) in self.expert_counts

    def _is_router(self, name: str) -> bool:
        """Part of a mixture's block that is called a router or gate, as in all implementations."""
        for block in self.mixtures:
            if name.startswith(f"{block}."):
                parts = name.removeprefix(f"{block}.").split(".")
                if any(part == "gate" or "router" in part for part in parts):
                    return True
        return False


def _expert_counts(settings: Mapping[str, Any]) -> Iterator[int]:
    """Numbers of experts in a configuration, sections included."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _expert_counts(value)
        elif "expert" in str(name):
            values = value if isinstance(value, list) else [value]
            yield from (count for count in values if type(count) is int and count > 1)


def _tied_weights(model: PreTrainedModel) -> set[str]:
    tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    return set(tied) | set(tied.values())


def _has_own_forward(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    is_packed = type(module).__module__.startswith("bitsandbytes.")  # a linear layer in 4 bits
    return not is_packed and type(module).forward not in (nn.Linear.forward, Conv1D.forward)


@lru_cache(maxsize=1024)
def reads_weight(module_class: type[nn.Module], attribute: str) -> bool:
    """Whether a module computes with the weight of a submodule instead of calling it, as fused kernels do.

    An adapter on that submodule would have no effect there, and 4-bit weights no meaning.

    Example:
        >>> reads_weight(nn.MultiheadAttention, "out_proj"), reads_weight(nn.Sequential, "0")
        (True, False)
    """
    metadata = "|".join(WEIGHT_METADATA)
    pattern = rf"self\.{re.escape(attribute)}\.weight\b(?!\.({metadata})\b)"
    for ancestor in module_class.__mro__:
        if ancestor is nn.Module:
            break
        try:
            source = inspect.getsource(ancestor)
        except (OSError, TypeError):  # written at a prompt, or in C
            continue
        if re.search(pattern, source):
            return True
    return False
