"""Put the fused forward passes on the layers of a model, and say which layers keep their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lit_align.compat.modules import is_replaced
from lit_align.models.fused.forwards import (
    AttentionForward,
    FusedForward,
    LoraForward,
    MlpForward,
    NormForward,
    SharedInput,
)
from lit_align.models.fused.gated_mlp import find_activation
from lit_align.models.fused.recognition import (
    adapter_obstacle,
    is_gated_mlp,
    is_lora_linear,
    norm_kind,
    rotates_halves,
)
from lit_align.models.lora import Lora

PROJECTIONS_OF_ONE_INPUT = ("q_proj", "k_proj", "v_proj")


@dataclass
class Fusion:
    """What became of the layers of a model.

    Args:
        fused: how many layers of each class have a fused forward pass.
        obstacles: why layers of a class keep their own, by class.
    """

    fused: dict[str, int] = field(default_factory=dict)
    obstacles: dict[str, str] = field(default_factory=dict)

    def add(self, module: nn.Module, obstacle: str | None = None) -> None:
        """Count a layer."""
        name = type(module).__name__
        if obstacle is None:
            self.fused[name] = self.fused.get(name, 0) + 1
        else:
            self.obstacles.setdefault(name, obstacle)

    def __str__(self) -> str:
        if not self.obstacles:
            return "Fused layers: all that have an adapter, a gate, a norm or a rotary embedding."
        reasons = [f"{name} ({reason})" for name, reason in sorted(self.obstacles.items())]
        return (
            f"Fused layers: {sum(self.fused.values())}. Computed by transformers' and PEFT's own code, with the same "
            f"results but slower: {', '.join(reasons)}."
        )


def fuse(model: nn.Module, roles: Sequence[str]) -> Fusion:
    """Put fused forward passes on the layers of a model that are known.

    Args:
        model: with PEFT's layers.
        roles: names of the adapters that are trained.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    unfuse(model)
    fusion, attention = Fusion(), []
    for module in list(model.modules()):
        if is_replaced(module):
            fusion.add(module, "its forward pass is replaced")
        elif isinstance(module, BaseTunerLayer):
            _fuse_adapter(module, roles, fusion)
        elif norm_kind(type(module)) is not None:  # type: ignore[arg-type]
            _set_forward(module, NormForward(module), fusion)
        elif is_gated_mlp(type(module)):  # type: ignore[arg-type]
            _fuse_mlp(module, fusion)
        elif "Attention" in type(module).__name__:
            attention.append(module)
        elif isinstance(module, nn.LayerNorm) or "Norm" in type(module).__name__:
            fusion.add(module, "another normalization than Llama's and Gemma's")
        elif "MLP" in type(module).__name__:
            fusion.add(module, "another feed-forward layer than Llama's")
    for module in attention:  # when the forward passes of their projections are set
        _fuse_attention(module, fusion)
    return fusion


def expected_fusion(model: nn.Module, lora: Lora) -> Fusion:
    """What would become of a model's layers, as far as they tell before they have adapters.

    Args:
        model: without adapters, with or without weights.
        lora: settings of its adapters.
    """
    fusion = fuse(model, ())
    unfuse(model)
    if lora.dropout:
        fusion.obstacles["adapters"] = f"lora.dropout is {lora.dropout}"
    return fusion


def unfuse(model: nn.Module) -> None:
    """Give all layers the forward passes of their classes again."""
    for module in model.modules():
        if isinstance(vars(module).get("forward"), FusedForward):
            del module.forward


def _set_forward(module: nn.Module, forward: FusedForward, fusion: Fusion) -> None:
    module.forward = forward  # type: ignore[assignment]
    fusion.add(module)


def _fuse_adapter(layer: nn.Module, roles: Sequence[str], fusion: Fusion) -> None:
    """Whether its fused form applies depends on the adapter that is active and on the mode, in each pass anew."""
    if is_lora_linear(layer):
        layer.forward = LoraForward(layer)
    adapters: Any = getattr(layer, "lora_A", ())
    obstacles = [adapter_obstacle(layer, role) for role in roles if role in adapters]
    fusion.add(layer, next((obstacle for obstacle in obstacles if obstacle), None))


def _fuse_mlp(module: nn.Module, fusion: Fusion) -> None:
    activation = find_activation(module.act_fn)  # type: ignore[arg-type]
    if activation is None:
        fusion.add(module, f"the activation {type(module.act_fn).__name__} is not SiLU or GELU")
    else:
        _set_forward(module, MlpForward(module, activation), fusion)


def _fuse_attention(module: nn.Module, fusion: Fusion) -> None:
    siblings = []
    for name in PROJECTIONS_OF_ONE_INPUT:
        layer = getattr(module, name, None)
        forward = vars(layer).get("forward") if isinstance(layer, nn.Module) else None
        if isinstance(forward, LoraForward):
            siblings.append(forward)
    shared = SharedInput([forward.module for forward in siblings]) if len(siblings) > 1 else None
    for forward in siblings:
        forward.shared = shared
    is_known = rotates_halves(type(module))  # type: ignore[arg-type]
    if is_known or shared is not None:
        module.forward = AttentionForward(module, shared)
    fusion.add(module, None if is_known else "another rotary embedding than Llama's, or none")
