"""Modules of torch: whether calling one does more than its forward pass."""

from __future__ import annotations

from torch import nn


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody watches or changes what a module computes, or its gradients.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> _ = layer.register_forward_hook(lambda module, inputs, output: None)
        >>> has_hooks(layer), has_hooks(nn.Linear(2, 2))
        (True, False)
    """
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def is_replaced(module: nn.Module) -> bool:
    """Whether a module has a forward pass of its own instead of its class's.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> layer.forward = lambda x: x
        >>> is_replaced(layer), is_replaced(nn.Linear(2, 2))
        (True, False)
    """
    return "forward" in vars(module)
