"""FlexAttention of torch: limits of its compiler, which are private settings; tests/compat fails when they change."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, cast

RECOMPILE_LIMIT = 64
"""Compilations of one function. Two kinds of layers, with and without gradient, make eight; torch allows eight."""

UNFUSED_WARNING = "flex_attention called without torch.compile"


@cache
def compiled_create_block_mask() -> Callable[..., Any]:
    """``create_block_mask``, compiled; with it, FlexAttention that is no longer compiled becomes an error.

    Beyond the limit of compilations torch computes all scores of a row in memory, after one warning.
    """
    import torch
    from torch._dynamo import config
    from torch.nn.attention.flex_attention import create_block_mask

    settings = cast(Any, config)
    settings.recompile_limit = max(settings.recompile_limit, RECOMPILE_LIMIT)
    warnings.filterwarnings("error", UNFUSED_WARNING, UserWarning)
    compiled: Callable[..., Any] = torch.compile(create_block_mask)
    return compiled


def explain_unfused(error: BaseException) -> str | None:
    """A sentence about FlexAttention that is no longer compiled; None for any other error.

    Args:
        error: that ended a run.

    Example:
        >>> explain_unfused(UserWarning(f"{UNFUSED_WARNING}() - ..."))
        'FlexAttention was compiled for more than 64 kinds of masks and rows, ...; set model.base.attention to sdpa'
    """
    if not (isinstance(error, UserWarning) and str(error).startswith(UNFUSED_WARNING)):
        return None
    return (
        f"FlexAttention was compiled for more than {RECOMPILE_LIMIT} kinds of masks and rows, and torch would go on "
        "without it, with all attention scores in memory; set model.base.attention to sdpa"
    )
