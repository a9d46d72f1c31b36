"""Packed trees as the attention masks that a model takes: by attention implementation, by layer type."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_align.functional.trees import FLEX_BLOCK_SIZE, visible
from lit_align.types import PackedTrees

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

FULL, SLIDING = "full_attention", "sliding_attention"
"""Layer types whose reading of a token depends on nothing but its position and what the mask lets it see."""

FORMS = ("sdpa", "eager", "flex_attention")
"""Attention implementations that take a mask for each pair of tokens."""


def packing_obstacle(model: Any) -> str | None:
    """Why ``model`` cannot read trees, as far as its configuration tells; None if nothing speaks against it."""
    config = model.config.get_text_config()
    if foreign := sorted(set(getattr(config, "layer_types", None) or ()) - {FULL, SLIDING}):
        return f"its layers include {', '.join(foreign)}"
    if config._attn_implementation not in FORMS:
        return (
            f"its attention, {config._attn_implementation!r}, takes no mask for each pair of tokens"
        )
    return None


def masks(model: Any, trees: PackedTrees) -> Any:
    """What ``model`` takes as ``attention_mask`` to read ``trees``: one mask, or one for each of its layer types.

    A mask that is given whole is used as it is: a window that a layer should have must be in it.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or None
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds and window is not None:
        # Such a model windows all of its layers or none: all, if its source builds a window for itself.
        source = sys.modules[type(model.base_model).__module__]
        kinds = {SLIDING if hasattr(source, "create_sliding_window_causal_mask") else FULL}
    formed = {
        kind: _formed(model, trees, window if kind == SLIDING else None) for kind in kinds or {FULL}
    }
    return formed if len(formed) > 1 else next(iter(formed.values()))


def _formed(model: Any, trees: PackedTrees, window: int | None) -> Tensor | BlockMask:
    attention = model.config.get_text_config()._attn_implementation
    if attention == "flex_attention":
        return _block_mask(trees, window)
    seen = visible(trees, window)[:, None]
    if attention == "sdpa":
        return seen
    # Eager attention adds its mask to the scores; it would add a boolean one too, without an error.
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
        ~seen, torch.finfo(dtype).min
    )


def _block_mask(trees: PackedTrees, window: int | None) -> BlockMask:
    """What ``visible`` says, for FlexAttention, which asks pair by pair and skips blocks where nothing is seen."""
    from torch.nn.attention.flex_attention import create_block_mask

    _, position, tree, response, *_ = trees

    def seen(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        earlier, same_tree = query >= key, tree[row, query] == tree[row, key]
        on_the_way = (response[row, key] < 0) | (response[row, query] == response[row, key])
        allowed = earlier & same_tree & on_the_way
        return (
            allowed
            if window is None
            else allowed & (position[row, query] - position[row, key] < window)
        )

    rows, length = tree.shape
    return create_block_mask(
        seen,
        rows,
        None,
        length,
        length,
        device=str(tree.device),
        BLOCK_SIZE=FLEX_BLOCK_SIZE,
        _compile=tree.is_cuda,
    )
