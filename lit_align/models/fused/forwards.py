"""Forward passes of single layers that take the fused form where it applies, and the layer's own where it does not.

Each stands in a layer's attribute ``forward``, which hides that of its class: hooks on the layer still run, other
instances of the class are untouched, and removing the attribute undoes it. They hold nothing but the layer and can be
copied and pickled with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_align.compat.modules import has_hooks, is_replaced
from lit_align.models.fused.gated_mlp import ACTIVATIONS, GatedMlp
from lit_align.models.fused.projections import Projection, project
from lit_align.models.fused.recognition import norm_kind, read_projection, rotates_halves
from lit_align.models.fused.rms_norm import rms_norm
from lit_align.models.fused.rotary import apply_rotary


class FusedForward:
    """The forward pass of one layer.

    Args:
        module: the layer.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module

    def own(self, *args: Any, **kwargs: Any) -> Any:
        """The result by the code of the layer's class."""
        return type(self.module).forward(self.module, *args, **kwargs)


class SharedInput:
    """Linear layers that read the same input, inside one pass through the module that they belong to.

    The first that is called computes all of them; the others hand out their result if they are called with the same
    tensor. Outside of such a pass, or with another input, each computes for itself.

    Args:
        layers: with adapters.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = list(layers)
        self._is_open = False
        self._input: Tensor | None = None
        self._outputs: dict[int, Tensor] = {}

    def __enter__(self) -> None:
        self._is_open = True

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._input = None
        self._outputs.clear()

    def take(self, layer: nn.Module, x: Tensor) -> Tensor | None:
        """The output of ``layer`` if another has computed it."""
        return self._outputs.pop(id(layer), None) if self._input is x else None

    def compute(self, layer: nn.Module, projection: Projection, x: Tensor) -> Tensor:
        """The output of ``layer``, and those of the others for later."""
        members, projections = [layer], [projection]
        if self._is_open and self._input is not x:
            for other in self.layers:
                other_projection = None if other is layer else read_projection(other, x)
                lora_a = None if other_projection is None else other_projection.lora_a
                if other_projection is not None and lora_a is not None and _fits(lora_a, x):
                    members.append(other)
                    projections.append(other_projection)
        first, *outputs = project(x, projections)
        if outputs:
            self._input = x
            numbers = [id(member) for member in members[1:]]
            self._outputs = dict(zip(numbers, outputs, strict=True))
        return first


def _fits(lora_a: Tensor, x: Tensor) -> bool:
    """Whether a layer can read this input: one of another attention may read something else."""
    return lora_a.shape[1] == x.shape[-1]


class LoraForward(FusedForward):
    """A linear layer with adapters.

    Attributes:
        shared: with the layers that read the same input, if there are some.
    """

    shared: SharedInput | None = None

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The output for ``x``; further arguments are PEFT's."""
        if args or kwargs:
            return self.own(x, *args, **kwargs)
        computed = None if self.shared is None else self.shared.take(self.module, x)
        if computed is not None:
            return computed
        projection = read_projection(self.module, x)
        if projection is None or projection.lora_a is None:
            return self.own(x)
        if self.shared is None:
            return project(x, (projection,))[0]
        return self.shared.compute(self.module, projection, x)


def _is_replaced_since(module: nn.Module) -> bool:
    """Whether somebody has put another forward pass on a layer than the fused one."""
    return is_replaced(module) and not isinstance(module.forward, FusedForward)


class MlpForward(FusedForward):
    """A gated feed-forward layer.

    Args:
        module: with the layers ``gate_proj``, ``up_proj`` and ``down_proj``.
        activation: that of the gate, by its name in `ACTIVATIONS`.
    """

    def __init__(self, module: nn.Module, activation: str) -> None:
        super().__init__(module)
        self.activation = activation

    def __call__(self, x: Tensor) -> Any:
        """The output for ``x``."""
        module = self.module
        layers = (module.gate_proj, module.up_proj, module.down_proj)
        if any(has_hooks(part) or _is_replaced_since(part) for part in (*layers, module.act_fn)):
            return self.own(x)
        gate, up, down = (read_projection(layer, x) for layer in layers)
        if gate is None or up is None or down is None:
            return self.own(x)
        return GatedMlp(gate, up, down, ACTIVATIONS[self.activation])(x)


class NormForward(FusedForward):
    """A root mean square normalization."""

    def __call__(self, x: Tensor) -> Any:
        """The output for ``x``."""
        module, weight = self.module, self.module.weight
        is_gemma = norm_kind(type(module)) == "gemma"  # type: ignore[arg-type]
        if weight.requires_grad or weight.dim() > 1 or x.dtype not in (weight.dtype, torch.float32):
            return self.own(x)
        if is_gemma:
            return rms_norm(x, 1.0 + weight.float(), module.eps, rounds_last=True)
        if x.dtype != weight.dtype:
            return self.own(x)
        return rms_norm(x, weight, module.variance_epsilon)


class AttentionForward(FusedForward):
    """An attention layer: its class's code, with another rotary embedding and shared projections where they apply.

    Args:
        module: the layer.
        shared: its query, key and value projections, if they have adapters.
    """

    def __init__(self, module: nn.Module, shared: SharedInput | None) -> None:
        super().__init__(module)
        self.shared = shared

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer's class returns for these arguments."""
        if self.shared is None:
            return self.own(*args, **kwargs)
        with self.shared:
            return self.own(*args, **kwargs)

    def own(self, *args: Any, **kwargs: Any) -> Any:
        """The result by the code of the layer's class, with `apply_rotary` where that computes the same."""
        forward = _forward_with_rotary(type(self.module))  # type: ignore[arg-type]
        return forward(self.module, *args, **kwargs)


@lru_cache(maxsize=256)
def _forward_with_rotary(module_class: type[nn.Module]) -> Callable[..., Any]:
    """The forward pass of an attention class, in which the name of the rotary embedding means `apply_rotary`."""
    forward: Any = module_class.forward
    if not rotates_halves(module_class):  # type: ignore[arg-type]
        return cast("Callable[..., Any]", forward)
    names = {**forward.__globals__, "apply_rotary_pos_emb": apply_rotary}
    copy = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__)
    copy.__kwdefaults__ = forward.__kwdefaults__
    return copy
