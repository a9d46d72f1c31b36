r"""Root mean square normalization that keeps its input and one number a row for the backward pass.

With :math:`r = (\mathrm{mean}(x^2) + \epsilon)^{-1/2}` and a frozen weight :math:`w`, the output is :math:`w r x` and
the gradient :math:`r (w g - r^2 x\, \mathrm{mean}(w g x))`. Both are computed in float32 and rounded where the layers
of transformers round: those of Llama before the weight is applied, those of Gemma after it. On a GPU torch has a kernel
for Llama's, which keeps the same and rounds once, after the weight.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(x: Tensor, weight: Tensor, eps: float, rounds_last: bool = False) -> Tensor:
    """Normalize the last dimension of ``x``.

    Args:
        x: ``[..., d]``.
        weight: ``[d]``, not trained.
        eps: added to the mean square.
        rounds_last: whether the weight is applied in float32, before the result is rounded to the dtype of ``x``.

    Example:
        >>> rms_norm(torch.tensor([[3.0, -3.0]]), torch.tensor([1.0, 2.0]), eps=0.0)
        tensor([[ 1., -2.]])
    """
    if not x.is_cpu and not rounds_last:
        return torch.nn.functional.rms_norm(x, weight.shape, weight, eps)
    if torch.is_grad_enabled() and x.requires_grad:
        result = _RMSNorm.apply(x, weight, eps, rounds_last)  # type: ignore[no-untyped-call]
        return cast(Tensor, result)
    with torch.no_grad():
        return _forward(x, weight, eps, rounds_last)[0]


def _forward(x: Tensor, weight: Tensor, eps: float, rounds_last: bool) -> tuple[Tensor, Tensor]:
    x_float32 = x.float()
    inverse_rms = x_float32.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    normalized = x_float32 * inverse_rms
    if rounds_last:
        return normalized.mul_(weight.float()).to(x.dtype), inverse_rms
    return normalized.to(x.dtype).mul_(weight.to(x.dtype)), inverse_rms


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, rounds_last: bool) -> Tensor:
        output, inverse_rms = _forward(x, weight, eps, rounds_last)
        ctx.save_for_backward(x, inverse_rms, weight)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse_rms, weight = ctx.saved_tensors
        x_float32 = x.float()
        weighted = grad.float() * weight.float()
        projection = torch.mul(weighted, x_float32).mean(-1, keepdim=True)
        projection.mul_(inverse_rms.pow(3)).neg_()
        x_grad = weighted.mul_(inverse_rms).addcmul_(x_float32, projection)
        return x_grad.to(x.dtype), None, None, None
