"""Memory that a run uses."""

from __future__ import annotations

import psutil
import torch

from lit_align.models.inventory import GIB


def memory_in_use(device: torch.device) -> float:
    """GiB: on a GPU the most that tensors have taken so far, elsewhere the resident memory of the process.

    Example:
        >>> 0.01 < memory_in_use(torch.device("cpu")) < 1000
        True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return float(psutil.Process().memory_info().rss) / GIB
