"""Attention masks of packed trees, by attention implementation and layer type."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_align.compat.flex_attention import compiled_create_block_mask
from lit_align.functional.trees import FLEX_BLOCK_SIZE, attention_mask
from lit_align.types import PackedTrees

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

FULL, SLIDING = "full_attention", "sliding_attention"
"""Layer types whose output for a token depends only on its position and on the tokens that the mask admits."""

MASKED_ATTENTION = ("sdpa", "eager", "flex_attention")
"""Attention implementations that take a mask with a value for each pair of tokens."""


def packing_obstacle(model: Any) -> str | None:
    """The reason why ``model`` cannot read packed trees, as far as its configuration tells; None if there is none."""
    config = model.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ())
    unsupported = sorted(layer_types - {FULL, SLIDING})
    if unsupported:
        return f"its layers include {', '.join(unsupported)}"
    attention = config._attn_implementation
    if attention not in MASKED_ATTENTION:
        return f"its attention, {attention!r}, takes no mask for each pair of tokens"
    return None


def masks_for_model(model: Any, trees: PackedTrees) -> Any:
    """The ``attention_mask`` argument of ``model`` for packed trees: one mask, or one for each of its layer types.

    Models use a complete mask as it is, so the window of a sliding-window layer must be part of it.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or None
    layer_types = set(getattr(config, "layer_types", None) or ())
    if not layer_types and window is not None:
        # Such a model has a window in all of its layers or in none: in all, if its source builds windowed masks.
        source = sys.modules[type(model.base_model).__module__]
        is_sliding = hasattr(source, "create_sliding_window_causal_mask")
        layer_types = {SLIDING if is_sliding else FULL}
    masks = {}
    for layer_type in layer_types or {FULL}:
        is_windowed = layer_type == SLIDING
        masks[layer_type] = build_mask(model, trees, window if is_windowed else None)
    if len(masks) > 1:
        return masks
    (mask,) = masks.values()
    return mask


def build_mask(model: Any, trees: PackedTrees, window: int | None) -> Tensor | BlockMask:
    """The mask of one layer type in the form that the model's attention implementation takes."""
    attention = model.config.get_text_config()._attn_implementation
    if attention == "flex_attention":
        return _block_mask(trees, window)
    mask = attention_mask(trees, window)[:, None]
    # Both implementations add the mask to the scores. Of a boolean one sdpa makes such a bias in each layer and keeps
    # it for the backward pass; eager attention would add it as it is, without an error.
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    lowest = -torch.inf if attention == "sdpa" else torch.finfo(dtype).min
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask, lowest)


def _block_mask(trees: PackedTrees, window: int | None) -> BlockMask:
    """`attention_mask` for FlexAttention, which evaluates it pair by pair and skips empty blocks."""
    from torch.nn.attention.flex_attention import create_block_mask

    create = compiled_create_block_mask() if trees.tree.is_cuda else create_block_mask
    tree, response = trees.tree, trees.response
    position = trees.position_ids

    def attends(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        is_earlier = query >= key
        same_tree = tree[row, query] == tree[row, key]
        key_in_prompt = response[row, key] < 0
        same_response = response[row, query] == response[row, key]
        allowed = is_earlier & same_tree & (key_in_prompt | same_response)
        if window is None:
            return allowed
        distance = position[row, query] - position[row, key]
        return allowed & (distance < window)

    rows, length = tree.shape
    block_mask: BlockMask = create(
        attends,
        rows,
        None,
        length,
        length,
        device=str(tree.device),
        BLOCK_SIZE=FLEX_BLOCK_SIZE,
    )
    return block_mask
