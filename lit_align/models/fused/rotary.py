"""Rotary position embedding of queries and keys, each written into one buffer.

The rotation is linear: the backward pass applies its transpose and needs the angles alone. transformers computes the
same sums from three intermediate tensors of the size of the queries.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def apply_rotary(
    query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """Rotate the halves of each head: ``(x1 cos1 - x2 sin1, x2 cos2 + x1 sin2)``; signature as in transformers.

    Args:
        query: ``[rows, heads, length, d]``.
        key: likewise; it may have fewer heads.
        cos: ``[rows, length, d]``.
        sin: likewise.
        unsqueeze_dim: the dimension of the heads.

    Example:
        >>> x, zero = torch.tensor([[[[3.0, 4.0]]]]), torch.zeros(1, 1, 2)
        >>> apply_rotary(x, x, zero, zero + 1)[0]  # by 90 degrees
        tensor([[[[-4.,  3.]]]])
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    needs_grad = query.requires_grad or key.requires_grad
    if torch.is_grad_enabled() and needs_grad:
        rotated = _Rotary.apply(query, key, cos, sin)  # type: ignore[no-untyped-call]
        return cast("tuple[Tensor, Tensor]", rotated)
    return _rotate(query, cos, sin), _rotate(key, cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    rotated = x * cos
    rotated[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return rotated


def _rotate_back(grad: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The transpose of `_rotate`."""
    half = grad.shape[-1] // 2
    rotated = grad * cos
    rotated[..., :half].addcmul_(grad[..., half:], sin[..., half:])
    rotated[..., half:].addcmul_(grad[..., :half], sin[..., :half], value=-1)
    return rotated


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        ctx.set_materialize_grads(False)
        return _rotate(query, cos, sin), _rotate(key, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        rotated = [None if grad is None else _rotate_back(grad, cos, sin) for grad in grads]
        return *rotated, None, None
