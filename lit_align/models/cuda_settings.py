"""Settings of torch on CUDA; a CPU computes as it would without them."""

from __future__ import annotations

from typing import Literal

import torch

from lit_align.models.load import Base, compute_dtype

MatmulPrecision = Literal["highest", "high", "medium"]


def set_matmul_precision(
    base: Base, device: torch.device, precision: MatmulPrecision | None = None
) -> None:
    """Set how exactly products of float32 matrices are computed on a GPU; on a CPU nothing changes.

    Args:
        base: the model that is computed with.
        device: where.
        precision: as torch names them; None is `default_precision`.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision(precision or default_precision(base, device))


def default_precision(base: Base, device: torch.device) -> MatmulPrecision:
    """``high`` (TF32) for a base that computes in half precision, whose rounding is coarser; else ``highest``.

    Example:
        >>> cuda = torch.device("cuda")
        >>> [default_precision(Base("model", dtype=dtype), cuda) for dtype in ("auto", "float32")]
        ['high', 'highest']
    """
    return "highest" if compute_dtype(base, device) == torch.float32 else "high"
