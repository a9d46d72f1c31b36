"""The attention mask of rows of several lengths while they grow by a token at a time."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from lit_align.models.decoding.buffer_length import round_up
from lit_align.models.decoding.row_order import move_rows
from lit_align.models.tree_check import backbone

PREPARED_ATTENTION = "sdpa"
"""The attention implementation that adds a mask to the scores and does nothing else with its length.

Eager attention has code of its own in each model; that of GPT-Neo takes a window from the end of the mask.
"""
MASK_FUNCTIONS = ("create_causal_mask", "create_sliding_window_causal_mask", "mask_function")
"""What models of transformers call to make the masks of their layers; the last is a choice of the first two."""


class PaddingMask:
    """Hides the padding on the left of the prompts, and what is not written yet.

    Args:
        prompt_mask: ``[rows, width]``, 0 is padding.
        limit: largest number of tokens of a row.
        dtype: of a mask that is added to the scores, ``[rows, 1, 1, tokens]``; None for one of zeros and ones,
            ``[rows, tokens]``, from which the model makes its own.
    """

    def __init__(self, prompt_mask: Tensor, limit: int, dtype: torch.dtype | None) -> None:
        self.dtype = dtype
        rows, width = prompt_mask.shape
        if dtype is None:
            self.mask = prompt_mask.new_zeros(rows, round_up(limit))
            self.mask[:, :width] = prompt_mask
        else:
            hidden = torch.finfo(dtype).min
            shape = (rows, 1, 1, round_up(limit))
            self.mask = torch.full(shape, hidden, dtype=dtype, device=prompt_mask.device)
            self.mask[:, 0, 0, :width].masked_fill_(prompt_mask.bool(), 0)

    def show(self, length: int) -> Tensor:
        """The mask once each row has ``length`` tokens, the last of which is shown from now on."""
        self.mask[..., length - 1] = 1 if self.dtype is None else 0
        return self.mask[..., : length if self.dtype is None else round_up(length)]

    def keep_rows(self, order: Sequence[int]) -> None:
        """Drop all rows that are not in ``order``; see `move_rows`."""
        self.mask = move_rows(self.mask, order)


def takes_prepared_mask(model: Any) -> bool:
    """Whether a model uses a complete mask as it is: its layers read it through transformers' mask functions alone.

    Others count positions in the mask or make a bias of it, and get zeros and ones.
    """
    if model.config.get_text_config()._attn_implementation != PREPARED_ATTENTION:
        return False
    module_class: type[nn.Module] = type(backbone(model))
    return _only_makes_masks(module_class)  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _only_makes_masks(module_class: type[nn.Module]) -> bool:
    """Whether a forward pass does nothing with ``attention_mask`` but hand it to functions that make masks."""
    try:
        source = textwrap.dedent(inspect.getsource(module_class.forward))
    except (OSError, TypeError):
        return False
    tree = ast.parse(source)
    num_reads = sum(_reads_mask(node) for node in ast.walk(tree))
    allowed = [name for node in ast.walk(tree) for name in _mask_arguments(node)]
    return bool(allowed) and num_reads == len(allowed)


def _reads_mask(node: ast.AST) -> bool:
    is_mask = isinstance(node, ast.Name) and node.id == "attention_mask"
    return is_mask and isinstance(node.ctx, ast.Load)  # type: ignore[attr-defined]


def _mask_arguments(node: ast.AST) -> list[ast.AST]:
    """Reads of the mask that only make the masks of the layers: in a call, its keywords, or a test of its type."""
    candidates: list[ast.AST] = []
    if isinstance(node, ast.Call):
        function = ast.unparse(node.func)
        if function in MASK_FUNCTIONS:
            candidates = [argument.value for argument in node.keywords]
        elif function == "isinstance" and isinstance(node.args[0], ast.NamedExpr):
            candidates = [node.args[0].value]
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "attention_mask":
                candidates.append(value)
    return [candidate for candidate in candidates if _reads_mask(candidate)]
