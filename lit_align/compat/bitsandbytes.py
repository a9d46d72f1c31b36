"""Which product bitsandbytes takes for 4-bit weights on a GPU: one that reads them packed, or one that unpacks them."""

from __future__ import annotations

from collections.abc import Callable

import torch

UsesPacked = Callable[[int, int, int], bool]
"""Whether a product of rows with a weight of so many outputs and inputs reads the weight packed."""


def packed_product_rule(device: torch.device, dtype: torch.dtype) -> UsesPacked | None:
    """The rule of the installed bitsandbytes for a card; None where it has none.

    Args:
        device: a CUDA device.
        dtype: of the computation.
    """
    try:
        from bitsandbytes.backends.cuda import ops
    except (ImportError, RuntimeError, AttributeError):
        return None
    rule = getattr(ops, "_gemm_4bit_use_custom_fn", None)
    largest = getattr(ops, "_gemm_4bit_custom_max_m", None)
    if rule is None or largest is None:
        return None

    def uses_packed(rows: int, outputs: int, inputs: int) -> bool:
        return rows <= largest and bool(rule(device.index, dtype, rows, outputs, inputs))

    return uses_packed
