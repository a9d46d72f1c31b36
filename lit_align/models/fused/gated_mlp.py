"""A feed-forward layer with a gate as one differentiable function: ``down(activation(gate(x)) * up(x))``.

Autograd would keep the gate before and after its activation, the up projection, and their product, which the adapter of
the down projection reads. Kept here are the gate and the up projection; the backward pass computes the others again, by
the operations of the forward pass and therefore to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, silu

from lit_align.models.fused import projections
from lit_align.models.fused.projections import Projection


class Activation(NamedTuple):
    """An activation and its derivative.

    Args:
        function: of the gate.
        in_place: the same, written over the gate.
        backward: from the gradient of the result and the gate to the gradient of the gate.
    """

    function: Callable[[Tensor], Tensor]
    in_place: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


_ATEN = torch.ops.aten

ACTIVATIONS = {
    "silu": Activation(silu, _ATEN.silu_, _ATEN.silu_backward),
    "gelu": Activation(gelu, _ATEN.gelu_, _ATEN.gelu_backward),
    "gelu_tanh": Activation(
        partial(gelu, approximate="tanh"),
        partial(_ATEN.gelu_, approximate="tanh"),
        partial(_ATEN.gelu_backward, approximate="tanh"),
    ),
}


def find_activation(module: nn.Module) -> str | None:
    """The name of the activation whose values a module gives, or None if it is another one.

    Example:
        >>> find_activation(nn.SiLU()), find_activation(nn.GELU("tanh")), find_activation(nn.ReLU())
        ('silu', 'gelu_tanh', None)
    """
    if any(True for _ in module.parameters()):
        return None
    points = torch.cat([torch.linspace(-6, 6, 97), torch.tensor([-1e4, -50.0, 50.0, 1e4])])
    with torch.no_grad():
        values = module(points.clone())
    for name, activation in ACTIVATIONS.items():
        if torch.equal(values, activation.function(points)):
            return name
    return None


class GatedMlp(NamedTuple):
    """The parts of a gated feed-forward layer as they compute at the moment."""

    gate: Projection
    up: Projection
    down: Projection
    activation: Activation

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output, ``[..., hidden]``, for an input of that shape in the dtype of the bases."""
        weights = projections.adapter_weights(self[:3])
        needs_grad = x.requires_grad or any(weight.requires_grad for weight in weights)
        if torch.is_grad_enabled() and needs_grad:
            return cast(Tensor, _GatedMlp.apply(x, self, *weights))  # type: ignore[no-untyped-call]
        with torch.no_grad():
            (gate, up), _ = projections.forward(x, self[:2])
            hidden = self.activation.in_place(gate).mul_(up)
            del gate, up
            (output,), _ = projections.forward(hidden, (self.down,))
            return output


class _GatedMlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mlp: GatedMlp, *weights: Tensor) -> Tensor:
        (gate, up), saved = projections.forward(x, mlp[:2])
        hidden = mlp.activation.function(gate).mul_(up)
        (output,), saved_down = projections.forward(hidden, (mlp.down,))
        ctx.mlp, ctx.num_saved = mlp, len(saved)
        ctx.save_for_backward(x, gate, up, *saved, *saved_down)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, up, *saved = ctx.saved_tensors
        mlp: GatedMlp = ctx.mlp
        saved, saved_down = saved[: ctx.num_saved], saved[ctx.num_saved :]
        activated = mlp.activation.function(gate)
        hidden = activated * up
        hidden_grad, down_grads = projections.backward((grad,), hidden, (mlp.down,), saved_down)
        del hidden
        hidden_grad = cast(Tensor, hidden_grad)
        up_grad = activated.mul_(hidden_grad)
        gate_grad = mlp.activation.backward(hidden_grad.mul_(up), gate)
        del hidden_grad
        x_grad, input_grads = projections.backward(
            (gate_grad, up_grad), x, mlp[:2], saved, ctx.needs_input_grad[0]
        )
        return x_grad, None, *input_grads, *down_grads
