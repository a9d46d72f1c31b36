"""Frozen linear layers and their LoRA adapters as one differentiable function.

With :math:`W` frozen, a layer computes :math:`y = W x + b + s B A x`. Layers that read one input are computed together:
their :math:`A` are stacked, so that :math:`A x` and its gradient are one product each. The adapter's part is added to
the result of the base in place, and the gradient of :math:`x` is summed up in one buffer. Saved for the backward pass
are the input and :math:`A x`, which has r numbers a token.

In float32 and float64 the results differ from PEFT's by the order of roundings. In half precision the adapter's weights
are rounded to the dtype of the base for each product, where PEFT converts the input to float32 instead; their gradients
are float32, as they are. Products with 4-bit weights are those of bitsandbytes, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lit_align.compat.quant_states import quant_state


class Projection(NamedTuple):
    """A linear layer as it computes at the moment.

    Args:
        base: the frozen layer.
        lora_a: ``[r, inputs]``; None without an adapter.
        lora_b: ``[outputs, r]``; None without an adapter.
        scaling: of the adapter's product.
    """

    base: nn.Module
    lora_a: Tensor | None = None
    lora_b: Tensor | None = None
    scaling: float = 1.0


def adapter_weights(projections: Sequence[Projection]) -> list[Tensor]:
    """The trained tensors of the projections, in the order in which `backward` returns their gradients."""
    weights = []
    for projection in projections:
        if projection.lora_a is not None and projection.lora_b is not None:
            weights += [projection.lora_a, projection.lora_b]
    return weights


def project(x: Tensor, projections: Sequence[Projection]) -> tuple[Tensor, ...]:
    """The outputs of linear layers that read the same input.

    Args:
        x: ``[..., inputs]``, in the dtype of the bases.
        projections: of frozen bases.

    Example:
        >>> base = nn.Linear(2, 1, bias=False).requires_grad_(False)
        >>> _ = base.weight.copy_(torch.tensor([[1.0, 2.0]]))
        >>> lora = Projection(base, torch.tensor([[1.0, 1.0]]), torch.tensor([[10.0]]), scaling=2.0)
        >>> project(torch.tensor([[3.0, 4.0]]), [lora])[0]  # 3 + 8, and 2 * 10 * 7
        tensor([[151.]])
    """
    projections = tuple(projections)
    weights = adapter_weights(projections)
    needs_grad = x.requires_grad or any(weight.requires_grad for weight in weights)
    if torch.is_grad_enabled() and needs_grad:
        return cast(
            "tuple[Tensor, ...]",
            _Projections.apply(x, projections, *weights),  # type: ignore[no-untyped-call]
        )
    with torch.no_grad():
        return tuple(forward(x, projections)[0])


class _Projections(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, projections: tuple[Projection, ...], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        outputs, saved = forward(x, projections)
        ctx.projections = projections
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *saved)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        needs_x = ctx.needs_input_grad[0]
        x_grad, weight_grads = backward(grads, x, ctx.projections, saved, needs_x)
        return x_grad, None, *weight_grads


def forward(x: Tensor, projections: Sequence[Projection]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of the projections, and what `backward` needs beside the input; called without gradient."""
    outputs = [projection.base(x) for projection in projections]
    stacked = _stacked_a(projections, x.dtype)
    if stacked is None:
        return outputs, []
    low_rank = x.flatten(0, -2) @ stacked.T
    saved = [low_rank, stacked]
    for output, projection, columns in zip(
        outputs, projections, _columns(projections), strict=True
    ):
        if projection.lora_b is not None:
            lora_b = projection.lora_b.to(x.dtype)
            rows = output.view(-1, output.shape[-1])
            _add_product(rows, low_rank[:, columns], lora_b.T, alpha=projection.scaling)
            saved.append(lora_b)
    return outputs, saved


def backward(
    grads: Sequence[Tensor | None],
    x: Tensor,
    projections: Sequence[Projection],
    saved: Sequence[Tensor],
    needs_x: bool = True,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Gradients of the input and of `adapter_weights`.

    Args:
        grads: of the outputs; None where one was not used.
        x: the input.
        projections: as in the forward pass.
        saved: what `forward` returned beside the outputs.
        needs_x: whether the gradient of the input is needed.
    """
    rows = x.flatten(0, -2)
    flat_grads = [None if grad is None else grad.flatten(0, -2) for grad in grads]
    x_grad = _base_gradient(flat_grads, projections, rows) if needs_x else None
    weight_grads: list[Tensor | None] = []
    if saved:
        low_rank, stacked, *lora_b = saved
        low_rank_grad = _low_rank_gradient(flat_grads, projections, lora_b, low_rank)
        dtype = adapter_weights(projections)[0].dtype
        a_grads = _product(low_rank_grad.T, rows, dtype)
        for grad, projection, columns in zip(
            flat_grads, projections, _columns(projections), strict=True
        ):
            if projection.lora_a is None:
                continue
            if grad is None:
                weight_grads += [None, None]
                continue
            b_grad = _product(grad.T, low_rank[:, columns], dtype).mul_(projection.scaling)
            weight_grads += [a_grads[columns], b_grad]
        if x_grad is not None:
            _add_product(x_grad, low_rank_grad, stacked)
    if x_grad is not None:
        x_grad = x_grad.view(x.shape)
    return x_grad, weight_grads


def _base_gradient(
    grads: Sequence[Tensor | None], projections: Sequence[Projection], rows: Tensor
) -> Tensor:
    """Gradient of the input through the frozen weights, ``[rows, inputs]``."""
    total = None
    for grad, projection in zip(grads, projections, strict=True):
        if grad is None:
            continue
        weight = dense_weight(projection.base, grad.dtype)
        if total is None:
            total = grad @ weight
        else:
            _add_product(total, grad, weight)
    return torch.zeros_like(rows) if total is None else total


def _low_rank_gradient(
    grads: Sequence[Tensor | None],
    projections: Sequence[Projection],
    lora_b: Sequence[Tensor],
    low_rank: Tensor,
) -> Tensor:
    """Gradient of the stacked A x, ``[rows, sum of ranks]``."""
    total = torch.empty_like(low_rank)
    remaining = iter(lora_b)
    for grad, projection, columns in zip(grads, projections, _columns(projections), strict=True):
        if projection.lora_b is None:
            continue
        own_b, part = next(remaining), total[:, columns]
        if grad is None:
            part.zero_()
        else:
            _add_product(part, grad, own_b, alpha=projection.scaling, beta=0)
    return total


def _add_product(
    total: Tensor, left: Tensor, right: Tensor, *, alpha: float = 1.0, beta: float = 1.0
) -> None:
    """``total = beta * total + alpha * left @ right`` in place; with beta 0 what was in it does not count."""
    torch.addmm(total, left, right, beta=beta, alpha=alpha, out=total)


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """A gradient of adapter weights in their dtype; GPUs sum in float32 and need not round to half precision."""
    if not left.is_cpu and left.dtype != dtype and dtype == torch.float32:
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


def _stacked_a(projections: Sequence[Projection], dtype: torch.dtype) -> Tensor | None:
    """All A of the projections one below the other, ``[sum of ranks, inputs]``; None if there is no adapter."""
    parts = [projection.lora_a for projection in projections if projection.lora_a is not None]
    if not parts:
        return None
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(dtype)


def _columns(projections: Sequence[Projection]) -> list[slice]:
    """The columns of each projection in the stacked A x; none without an adapter."""
    columns, start = [], 0
    for projection in projections:
        rank = 0 if projection.lora_a is None else len(projection.lora_a)
        columns.append(slice(start, start + rank))
        start += rank
    return columns


def dense_weight(base: nn.Module, dtype: torch.dtype) -> Tensor:
    """The weight of a frozen linear layer, ``[outputs, inputs]``; 4-bit ones are dequantized by bitsandbytes.

    Example:
        >>> dense_weight(nn.Linear(3, 2), torch.float32).shape
        torch.Size([2, 3])
    """
    weight: Any = base.weight
    state = quant_state(base)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.view(-1, 1), state).to(dtype)
    return cast(Tensor, weight if isinstance(base, nn.Linear) else weight.T)
