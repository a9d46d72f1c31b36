"""On a CPU, 4-bit weights are dequantized for each product; while tokens are sampled, once for all products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import nn

from lit_align.compat.modules import has_hooks, is_replaced
from lit_align.models.fused.projections import dense_weight

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel

SHARE_OF_MEMORY = 0.5
"""Share of the memory that is free which dequantized weights may take."""

CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
"""Limit and use of the memory of a container."""


@contextmanager
def dense_base(model: PreTrainedModel) -> Iterator[None]:
    """Inside, 4-bit layers on a CPU compute with weights that are dequantized once, if there is memory for them.

    bitsandbytes computes the same there: it dequantizes the weight and calls the product of a linear layer, for each
    pass anew. All numbers are the same to the last bit.

    Args:
        model: its frozen 4-bit layers are replaced, and put back at the end.
    """
    layers = _dequantizable(model)
    size = sum(_dense_bytes(layer) for _, _, layer in layers)
    if size > SHARE_OF_MEMORY * free_memory():
        layers = []
    try:
        for parent, name, layer in layers:
            setattr(parent, name, _dense_layer(layer))
        yield
    finally:
        for parent, name, layer in layers:
            setattr(parent, name, layer)


def free_memory() -> int:
    """Bytes of memory that this process can still take, in a container too."""
    free = int(psutil.virtual_memory().available)
    for limit_file, usage_file in CGROUP_FILES:
        try:
            limit, usage = Path(limit_file).read_text(), Path(usage_file).read_text()
            free = min(free, int(limit) - int(usage))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return max(free, 0)


def _dequantizable(model: PreTrainedModel) -> list[tuple[nn.Module, str, Any]]:
    """4-bit layers on a CPU with the modules that hold them and their names there."""
    from bitsandbytes.nn import Linear4bit  # type: ignore[attr-defined]

    layers = []
    for parent in model.modules():
        for name, layer in parent.named_children():
            if type(layer) is Linear4bit and _is_plain(layer, model.dtype):
                layers.append((parent, name, layer))
    return layers


def _is_plain(layer: Any, dtype: torch.dtype) -> bool:
    """Whether a 4-bit layer does only the product in ``dtype`` with its dequantized weight, and is not watched."""
    weight, bias = layer.weight, layer.bias
    state = getattr(weight, "quant_state", None)
    if weight.device.type != "cpu" or state is None or len(state.shape) != 2:
        return False
    if getattr(state, "packing_format_for_cpu", False) or layer.support_avx512bf16_for_cpu:
        return False
    dtypes = {state.dtype, layer.compute_dtype, dtype if bias is None else bias.dtype}
    return dtypes == {dtype} and not has_hooks(layer) and not is_replaced(layer)


def _dense_bytes(layer: Any) -> int:
    state = layer.weight.quant_state
    return int(state.shape[0] * state.shape[1] * state.dtype.itemsize)


def _dense_layer(layer: Any) -> nn.Linear:
    state = layer.weight.quant_state
    weight = dense_weight(layer, state.dtype)
    outputs, inputs = state.shape
    dense = nn.Linear(inputs, outputs, bias=False, device="meta")
    dense.weight = nn.Parameter(weight, requires_grad=False)
    dense.bias = layer.bias
    return dense.train(layer.training)
