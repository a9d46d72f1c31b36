"""Move the tensors of a step to a device in one copy, and host numbers to it, without making the host wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_align.types import Batch, Step

ALIGNMENT = 8
"""Bytes; each tensor begins at a multiple of them, as its elements require."""

BATCH_PARTS = ("trees", "pairs", "unpaired", "rankings")
"""Fields of a micro-batch that hold tensors."""


def step_to_device(step: Step, device: torch.device) -> Step:
    """The step with the tensors of its micro-batches on ``device``."""
    return step._replace(batches=batches_to_device(step.batches, device))


def batches_to_device(batches: Sequence[Batch], device: torch.device) -> tuple[Batch, ...]:
    """The micro-batches with their tensors on ``device``, all of them in one copy."""
    tensors: list[Tensor] = []
    for batch in batches:
        for name in BATCH_PARTS:
            tensors += _tensors_of(getattr(batch, name))
    moved = iter(move_together(tensors, device))
    results = []
    for batch in batches:
        parts = {name: _with_tensors(getattr(batch, name), moved) for name in BATCH_PARTS}
        results.append(batch._replace(**parts))
    return tuple(results)


def move_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The tensors on ``device``, in one copy for which the host does not wait; those of a CPU are packed for it.

    Example:
        >>> numbers, flags = torch.tensor([1.5]), torch.tensor([True, False])
        >>> move_together([numbers, flags], torch.device("cpu", 0))
        [tensor([1.5000]), tensor([ True, False])]
    """
    if all(tensor.device == device for tensor in tensors):
        return list(tensors)
    if not all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.to(device) for tensor in tensors]
    starts, end = [], 0
    for tensor in tensors:
        starts.append(end)
        end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    # from pageable memory the copy would make the host wait; CUDA keeps a pinned block until its copies are done
    packed = torch.empty(end, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for start, tensor in zip(starts, tensors, strict=True):
        packed[start : start + tensor.nbytes] = tensor.contiguous().view(-1).view(torch.uint8)
    on_device = packed.to(device, non_blocking=True)
    moved = []
    for start, tensor in zip(starts, tensors, strict=True):
        content = on_device[start : start + tensor.nbytes]
        moved.append(content.view(tensor.dtype).view(tensor.shape))
    return moved


def numbers_to_device(numbers: Any, device: torch.device) -> Tensor:
    """Numbers that the host knows as a tensor on ``device``, for which the host does not wait.

    Args:
        numbers: as ``torch.tensor`` takes them.
        device: where to.

    Example:
        >>> numbers_to_device([[1.0, 2.0]], torch.device("cpu"))
        tensor([[1., 2.]])
    """
    (moved,) = move_together([torch.as_tensor(numbers)], device)
    return moved


def _tensors_of(part: Any) -> list[Tensor]:
    """The tensors of a part of a batch, in the order of its fields, and of named tuples in it."""
    if isinstance(part, Tensor):
        return [part]
    tensors = []
    for name in getattr(part, "_fields", ()):
        tensors += _tensors_of(getattr(part, name))
    return tensors


def _with_tensors(part: Any, moved: Iterator[Tensor]) -> Any:
    """The same part with its tensors replaced by the next ones of ``moved``."""
    if isinstance(part, Tensor):
        return next(moved)
    names = getattr(part, "_fields", ())
    if not names:
        return part
    return type(part)(*[_with_tensors(getattr(part, name), moved) for name in names])
