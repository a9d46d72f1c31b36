"""The scales of 4-bit weights of bitsandbytes, wherever a layer has them."""

from __future__ import annotations

from typing import Any


def quant_state(module: Any) -> Any:
    """The scales of a layer's 4-bit weight; None if it has none.

    A weight that was gathered from several processes comes without them, and its layer keeps them.

    Args:
        module: any layer.

    Example:
        >>> from torch import nn
        >>> quant_state(nn.Linear(2, 2)) is None
        True
    """
    weight = getattr(module, "weight", None)
    if weight is None:  # such as the parametrization of packed experts, which has scales of its own
        return None
    state = getattr(weight, "quant_state", None)
    return getattr(module, "quant_state", None) if state is None else state
