"""How many completions to decode at once on a card: 4-bit weights are read packed only up to a number of rows.

A step reads every weight once. Above a number of rows that hangs on the card and the weight, bitsandbytes unpacks it
first: half a byte a number is read, two are written and two are read again. A batch somewhat above that number can take
longer than two below it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from lit_align.compat.bitsandbytes import UsesPacked, packed_product_rule
from lit_align.models.inventory import NF4

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel

LAUNCH_SECONDS = 8e-6
"""Time of the host for a kernel; a step is never faster than its launches."""
KERNELS_PER_WEIGHT = 9
"""Kernels of a layer in a step, for each of its 4-bit weights."""


def rows_at_once(model: PreTrainedModel, rows: int) -> int:
    """Completions to decode together when ``rows`` are allowed: fewer only where that takes less time.

    On a CPU, and without 4-bit weights, all of them. The time is computed from the bytes that a step reads; it was
    not measured on a GPU.

    Args:
        model: a causal language model.
        rows: most completions at once.
    """
    device = model.device
    if device.type != "cuda":
        return rows
    weights = Counter(_packed_shapes(model))
    uses_packed = packed_product_rule(device, model.dtype)
    bandwidth = _bandwidth(device)
    if not weights or uses_packed is None or not bandwidth:
        return rows
    return fastest_rows(rows, weights, uses_packed, bandwidth, model.dtype.itemsize)


def fastest_rows(
    rows: int,
    weights: Mapping[tuple[int, int], int],
    uses_packed: UsesPacked,
    bandwidth: float,
    itemsize: int = 2,
) -> int:
    """The batch size up to ``rows`` with which ``rows`` completions take the least time.

    Args:
        rows: completions.
        weights: how many 4-bit weights there are of each shape, outputs and inputs.
        uses_packed: bitsandbytes' rule on the card.
        bandwidth: of the card's memory, in bytes a second.
        itemsize: bytes of an unpacked number.

    Example:
        >>> def uses_packed(rows, outputs, inputs):
        ...     return rows <= 64
        >>> weights = {(16384, 16384): 400}  # 54 GB packed, 10 times as much with their unpacked copies
        >>> fastest_rows(80, weights, uses_packed, 1e12), fastest_rows(64, weights, uses_packed, 1e12)
        (64, 64)
    """

    def seconds(batch: int) -> float:
        num_batches = -(-rows // batch)
        return num_batches * _step_seconds(batch, weights, uses_packed, bandwidth, itemsize)

    limits = {_row_limit(rows, shape, uses_packed) for shape in weights}
    return min(sorted(limits | {rows}, reverse=True), key=seconds)


def _step_seconds(
    rows: int,
    weights: Mapping[tuple[int, int], int],
    uses_packed: UsesPacked,
    bandwidth: float,
    itemsize: int,
) -> float:
    num_bytes = 0.0
    for (outputs, inputs), count in weights.items():
        each = NF4
        if not uses_packed(rows, outputs, inputs):
            each += 2 * itemsize
        num_bytes += each * outputs * inputs * count
    launches = KERNELS_PER_WEIGHT * sum(weights.values())
    return max(num_bytes / bandwidth, LAUNCH_SECONDS * launches)


def _row_limit(rows: int, shape: tuple[int, int], uses_packed: UsesPacked) -> int:
    """The largest number up to ``rows`` with which a weight is read packed; 1 if there is none."""
    return next((count for count in range(rows, 0, -1) if uses_packed(count, *shape)), 1)


def _packed_shapes(model: PreTrainedModel) -> list[tuple[int, int]]:
    shapes = []
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None and len(state.shape) == 2:
            outputs, inputs = state.shape
            shapes.append((outputs, inputs))
    return shapes


def _bandwidth(device: torch.device) -> float | None:
    """Bytes a second of a card's memory; None where the driver does not tell."""
    properties = torch.cuda.get_device_properties(device)
    clock = getattr(properties, "memory_clock_rate", 0)  # kHz, two transfers in each
    width = getattr(properties, "memory_bus_width", 0)  # bits
    return 2e3 * clock * width / 8 or None
