"""Sequences whose keys and values are written in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import DynamicCache

from lit_align.models.decoding.buffered_cache import BufferedCache
from lit_align.models.decoding.next_logits import NextLogits
from lit_align.models.decoding.padding_mask import PaddingMask, takes_prepared_mask
from lit_align.models.decoding.prompts import Limits, Prompts, repeat_rows
from lit_align.models.decoding.row_order import move_rows

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel


class BufferedSequences:
    """Sequences whose keys and values are written in place, with a mask that is not made again for each token.

    No step but the reading of the prompts makes the host wait for the device.

    Args:
        model: a causal language model whose layers are all buffered; see `is_buffered`.
    """

    can_drop = True

    def __init__(self, model: PreTrainedModel) -> None:
        self.next_logits = NextLogits(model)
        self.num_layers = len(DynamicCache(config=model.config).layers)
        self.mask_dtype = model.dtype if takes_prepared_mask(model) else None
        self.length = 0

    def read(self, prompts: Prompts, limits: Limits) -> Tensor:
        """Read the prompts; logits of the first new token, ``[prompts * generations, vocabulary]``."""
        repeats = limits.num_generations
        num_prompts, self.length = prompts.ids.shape
        limit = self.length + limits.max_new_tokens
        needs_mask = prompts.is_padded or self.mask_dtype is None
        is_aligned = needs_mask and self.mask_dtype is not None
        self.cache = BufferedCache(
            self.num_layers, num_prompts * repeats, self.length, limit, is_aligned
        )
        logits = []
        for start, part in prompts.parts(limits.token_budget):
            first_row = start * repeats
            self.cache.read_prompts(slice(first_row, first_row + len(part.ids) * repeats))
            logits.append(self.next_logits(part.ids, part.mask, part.positions, self.cache))
        self.cache.finish_prompts(self.length)
        self.position = prompts.positions[:, -1:].repeat_interleave(repeats, 0)
        self.mask = None
        if needs_mask:
            prompt_mask = prompts.mask.repeat_interleave(repeats, 0)
            self.mask = PaddingMask(prompt_mask, limit, self.mask_dtype)
        return repeat_rows(logits, repeats)

    def append(self, token: Tensor) -> Tensor:
        """Append a token to each row, ``[rows]``; logits of the next one."""
        self.length += 1
        self.position += 1
        mask = None if self.mask is None else self.mask.show(self.length)
        return self.next_logits(token[:, None], mask, self.position, self.cache)

    def reserve(self, num_tokens: int) -> None:
        """Make room for so many more tokens."""
        self.cache.reserve(self.length + num_tokens)

    def keep_rows(self, order: Sequence[int]) -> None:
        """Drop all rows that are not in ``order``; see `move_rows`."""
        self.cache.keep_rows(order)
        self.position = move_rows(self.position, order)
        if self.mask is not None:
            self.mask.keep_rows(order)
