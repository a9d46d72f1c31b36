"""Where the host would wait for a GPU, counted on a CPU.

`HostWaits` follows which tensors would be on a GPU, of which `GPU` is the pretended device: what `pretend_on_gpu`
marks, what is made from it, and what is made on `GPU` or moved there. It counts the calls that make the host wait for
such a tensor: reading a value, an index or a size that depends on values, a copy that is not ``non_blocking``. It sees
calls of Python; the backward pass of torch's own functions, which reads no values, is not followed.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

GPU = torch.device("cpu", 0)
"""Torch computes on it as on the CPU, and tells the two apart."""

ROOT = __file__.rpartition("/tests/")[0]
READS = {"item", "tolist", "numpy", "cpu", "equal", "is_nonzero"}
READS |= {"__bool__", "__int__", "__float__", "__index__", "__contains__", "__format__", "__repr__"}
SIZES = {
    "nonzero",
    "argwhere",
    "bincount",
    "masked_select",
    "unique",
    "_unique2",
    "unique_consecutive",
}
FACTORIES = {"tensor", "as_tensor", "new_tensor"}


class HostWaits(TorchFunctionMode):
    """While it is active, counts waits.

    Attributes:
        found: number of waits by kind and line.
    """

    def __init__(self):
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()

    @property
    def total(self) -> int:
        """All waits so far."""
        return self.found.total()

    def by_kind(self) -> Counter[str]:
        """Number of waits by kind, whichever line made them."""
        kinds: Counter[str] = Counter()
        for (kind, _), number in self.found.items():
            kinds[kind] += number
        return kinds

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        tensors = list(_tensors((args, kwargs)))
        is_on_gpu = any(map(_is_marked, tensors))
        if func == torch.Tensor.device.__get__ and is_on_gpu:
            return GPU
        is_move = name == "to" and GPU in (*args[1:], kwargs.get("device"))
        is_made_there = kwargs.get("device") == GPU
        kind = self._wait(name, args, kwargs, tensors, is_on_gpu, is_move, is_made_there)
        if kind:
            self.found[kind, _line()] += 1
        result = func(*args, **kwargs)
        if name in READS:
            return result.detach().clone() if isinstance(result, Tensor) else result
        if is_move and not is_on_gpu:
            result = result.detach() if not result.requires_grad else result.view_as(result)
        if is_on_gpu or is_move or is_made_there:
            _mark(result)
        return result

    def _wait(self, name, args, kwargs, tensors, is_on_gpu, is_move, is_made_there) -> str:
        """The kind of wait that a call is; empty if it is none."""
        if name in FACTORIES and (is_made_there or (name == "new_tensor" and is_on_gpu)):
            return f"copies host numbers: {name}"
        if is_move and not is_on_gpu:
            return "" if kwargs.get("non_blocking") else "copies a host tensor"
        if not is_on_gpu:
            return ""
        if name in READS:
            return f"reads a value: {name}"
        if name in SIZES or (name == "where" and len(args) == 1):
            return f"has a size that depends on values: {name}"
        if name == "repeat_interleave" and len(tensors) > 1 and "output_size" not in kwargs:
            return f"has a size that depends on values: {name}"
        if name in ("__getitem__", "__setitem__"):
            return _index_wait(args[1])
        return ""


def pretend_on_gpu(module: nn.Module) -> None:
    """Mark the weights of ``module`` as tensors on a GPU."""
    for weight in [*module.parameters(), *module.buffers()]:
        _mark(weight)


def pretend_tensor_on_gpu(tensor: Tensor) -> None:
    """Mark a tensor likewise."""
    _mark(tensor)


def _index_wait(index: Any) -> str:
    for tensor in _tensors(index):
        if tensor.dtype == torch.bool:
            return "has a size that depends on values: a boolean index"
        if tensor.dim() and not _is_marked(tensor):
            return "copies a host tensor: an index"
    return ""


def _is_marked(tensor: Tensor) -> bool:
    return getattr(tensor, "_is_on_pretended_gpu", False)


def _mark(value: Any) -> None:
    for tensor in _tensors(value):
        tensor._is_on_pretended_gpu = True


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _line() -> str:
    """The innermost line of the project, or else of another library, that made the call."""
    frames = traceback.extract_stack()[:-3]
    for folder in (f"{ROOT}/lit_align/", "/site-packages/"):
        for frame in reversed(frames):
            if folder in frame.filename and "/torch/" not in frame.filename:
                return f"{frame.filename.rpartition(folder)[2]}:{frame.lineno}"
    return ""
