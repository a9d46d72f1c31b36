"""What the card can do: copies, matrix products, launches, and products with 4-bit weights."""

from __future__ import annotations

import bitsandbytes
import torch

from tests.gpu.options import KitOptions, median_seconds
from tests.gpu.shapes import SHAPES

LAUNCHES = 1000
ROWS = (1, 32, 64, 256, 2048)
"""Rows of activations: decoding one sequence, decoding batches, prefill, training."""


def ceilings(options: KitOptions) -> dict:
    """Speeds that no program on this card exceeds."""
    return {
        "ok": True,
        "copy_bytes_per_second": copy_bytes_per_second(options),
        "bfloat16_flop_per_second": flop_per_second(options),
        "microseconds_per_launch": microseconds_per_launch(options),
        "microseconds_per_product": product_times(options),
    }


def copy_bytes_per_second(options: KitOptions) -> float:
    """Bytes read and written by a copy within the memory of the device."""
    num_bytes = 2**20 if options.tiny else 2**31
    source = torch.empty(num_bytes, dtype=torch.uint8, device=options.device)
    target = torch.empty_like(source)
    return 2 * num_bytes / median_seconds(lambda: target.copy_(source), options.device)


def flop_per_second(options: KitOptions) -> float:
    """Of a large matrix product in bfloat16."""
    size = 256 if options.tiny else 8192
    left, right = (
        torch.randn(size, size, dtype=torch.bfloat16, device=options.device) for _ in range(2)
    )
    return 2 * size**3 / median_seconds(lambda: left @ right, options.device)


def microseconds_per_launch(options: KitOptions) -> float:
    """Host time of a kernel that has nothing to do."""
    small = torch.zeros(8, device=options.device)

    def launch() -> None:
        for _ in range(LAUNCHES):
            small.add_(1.0)

    return 1e6 / LAUNCHES * median_seconds(launch, options.device)


@torch.no_grad()
def product_times(options: KitOptions) -> dict[str, dict[str, float]]:
    """Activations times the weight of one feed-forward layer, in NF4 and in bfloat16, by rows."""
    shape = SHAPES["tiny" if options.tiny else "8b"]
    size = (shape["intermediate_size"], shape["hidden_size"])
    weight = torch.randn(size, dtype=torch.bfloat16, device=options.device)
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    times: dict[str, dict[str, float]] = {"nf4": {}, "bfloat16": {}}
    for rows in ROWS:
        activations = torch.randn(rows, size[1], dtype=torch.bfloat16, device=options.device)
        products = {
            "nf4": lambda x=activations: bitsandbytes.matmul_4bit(x, packed, quant_state=state),
            "bfloat16": lambda x=activations: x @ weight.T,
        }
        for name, product in products.items():
            times[name][str(rows)] = 1e6 * median_seconds(product, options.device)
    return times
