"""Kernels and waits of the host for each decoded token, counted on a CPU as if its tensors were on a GPU.

An operation that computes or copies is a kernel; views and empty tensors are none. The host waits where it reads a
number from the device, indexes by booleans, or copies from its own memory. Which tensors would be on the device is
followed through each operation: those of the model, those that are made there, and all that is computed from one.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lit_align.models.decoding.batch import STEPS_BETWEEN_CHECKS, Choice, decode_batch

VIEWS = frozenset(
    """
    view _unsafe_view t transpose expand permute slice select unsqueeze squeeze as_strided detach alias reshape split
    unbind split_with_sizes narrow lift_fresh _reshape_alias chunk diagonal unfold
    empty empty_strided empty_like new_empty new_empty_strided
    """.split()  # noqa: SIM905
)
READS = frozenset(
    "item tolist cpu numpy equal is_nonzero __bool__ __int__ __float__ __index__ __contains__".split()  # noqa: SIM905
)
DEPENDS_ON_VALUES = frozenset(["nonzero", "bincount", "masked_select", "unique", "argwhere"])
MAKES_FROM_HOST = frozenset(["tensor", "as_tensor", "new_tensor"])


class CountKernels(TorchDispatchMode):
    """Counts operations on tensors that are no views, by name.

    Attributes:
        kernels: how many of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name not in VIEWS:
            self.kernels[name] += 1
        return function(*args, **(kwargs or {}))


class CountHostWaits(TorchFunctionMode):
    """Counts what would make the host wait for the device, by the name of the function.

    Args:
        modules: their tensors are on the device.
        tensors: likewise.

    Attributes:
        waits: how many of each.
    """

    def __init__(self, *modules: nn.Module, tensors: tuple[Tensor, ...] = ()) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        for module in modules:
            tensors = (*tensors, *module.parameters(), *module.buffers())
        for tensor in tensors:
            tensor.on_device = True

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", str(function))
        inputs = list(_tensors((args, kwargs)))
        reads_device = any(_on_device(tensor) for tensor in inputs)
        moves = name == "to" and _names_device(args[1:], kwargs)
        makes = name in MAKES_FROM_HOST and (reads_device or "device" in kwargs)
        if _waits(name, args, inputs, reads_device) or makes or (moves and not reads_device):
            self.waits[name] += 1
        result = function(*args, **kwargs)
        if moves and result is inputs[0] and not reads_device:
            result = result.view_as(result)
        goes_to_device = reads_device or makes or moves or kwargs.get("device") is not None
        for tensor in _tensors(result):
            tensor.on_device = goes_to_device and name not in READS
        return result


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _on_device(tensor: Tensor) -> bool:
    return getattr(tensor, "on_device", False)


def _names_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return "device" in kwargs or any(isinstance(value, torch.device | str) for value in args)


def _waits(name: str, args: tuple[Any, ...], inputs: list[Tensor], reads_device: bool) -> bool:
    if not reads_device:
        return False
    if name in READS or name in DEPENDS_ON_VALUES:
        return True
    if name == "repeat_interleave":
        return len(inputs) > 1
    if name in ("__getitem__", "__setitem__"):
        indices = list(_tensors(args[1]))
        from_host = any(index.dim() and not _on_device(index) for index in indices)
        return from_host or any(index.dtype == torch.bool for index in indices)
    return False


class TokenCounts(NamedTuple):
    """What a decoded token takes, whatever the number of rows.

    Args:
        kernels: by name.
        host_waits: by name.
    """

    kernels: dict[str, float]
    host_waits: dict[str, float]

    @property
    def num_kernels(self) -> float:
        """All kernels."""
        return sum(self.kernels.values())

    @property
    def num_host_waits(self) -> float:
        """All waits of the host."""
        return sum(self.host_waits.values())

    def at_depth(
        self, shallower: "TokenCounts", layers: int, shallower_layers: int, depth: int
    ) -> "TokenCounts":
        """The counts of a model with ``depth`` layers, from those of two that are less deep."""
        factor = (depth - layers) / (layers - shallower_layers)

        def extrapolate(counts: dict[str, float], fewer: dict[str, float]) -> dict[str, float]:
            names = set(counts) | set(fewer)
            return {
                name: counts.get(name, 0.0)
                + factor * (counts.get(name, 0.0) - fewer.get(name, 0.0))
                for name in names
            }

        return TokenCounts(
            extrapolate(self.kernels, shallower.kernels),
            extrapolate(self.host_waits, shallower.host_waits),
        )


def count_decoding(model: Any, rows: int = 4, checks: int = 2) -> TokenCounts:
    """Count a sampled token: the difference between many and few, so that reading the prompts is left out.

    Args:
        model: a causal language model in eval mode, with its adapter active.
        rows: completions, two of each prompt; the prompts have different lengths.
        checks: how often the host looks which completions have ended in what is counted.
    """
    few, many = (_count(model, rows, STEPS_BETWEEN_CHECKS * times) for times in (1, 1 + checks))
    num_tokens = STEPS_BETWEEN_CHECKS * checks
    differences = []
    for counts, base in zip(many, few, strict=True):
        counts.subtract(base)
        differences.append({name: n / num_tokens for name, n in counts.items() if n})
    return TokenCounts(*differences)


@torch.no_grad()
def _count(model: Any, rows: int, num_tokens: int) -> tuple[Counter[str], Counter[str]]:
    prompts = [[5] * (3 + place) for place in range(rows // 2)]
    generator = torch.Generator().manual_seed(0)
    uniforms = torch.rand(len(prompts), 2, num_tokens, generator=generator, dtype=torch.float64)
    choice = Choice(1.0, frozenset(), STEPS_BETWEEN_CHECKS)
    waits, kernels = CountHostWaits(model, tensors=(uniforms,)), CountKernels()
    with waits, kernels:
        decode_batch(model, prompts, uniforms, choice, token_budget=1000)
    return kernels.kernels, waits.waits
