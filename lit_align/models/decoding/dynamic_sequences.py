"""Sequences in the cache that transformers chooses for a model: recurrent states, windows, and whatever comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from lit_align.models.decoding.next_logits import NextLogits
from lit_align.models.decoding.prompts import Limits, Prompts, repeat_rows

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel


class DynamicSequences:
    """Sequences in transformers' own cache, which copies keys and values to append to them.

    Args:
        model: a causal language model.

    Attributes:
        can_drop: whether rows of the cache can be copied, joined and dropped; those of recurrent states cannot.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.next_logits = NextLogits(model)
        self.config = model.config
        layers = DynamicCache(config=model.config).layers
        # a layer with attention and a recurrent state copies the rows of its attention alone
        self.can_drop = all(
            hasattr(layer, "batch_repeat_interleave")
            and not isinstance(layer, LinearAttentionCacheLayerMixin)
            for layer in layers
        )

    def read(self, prompts: Prompts, limits: Limits) -> Tensor:
        """Read the prompts; logits of the first new token, ``[prompts * generations, vocabulary]``."""
        repeats, token_budget = limits.num_generations, limits.token_budget
        if not self.can_drop:
            prompts, repeats = prompts.repeat(repeats), 1
            token_budget = prompts.ids.numel()
        caches, logits = [], []
        for _, part in prompts.parts(token_budget):
            caches.append(DynamicCache(config=self.config))
            logits.append(self.next_logits(part.ids, part.mask, part.positions, caches[-1]))
        first_logits = repeat_rows(logits, repeats)
        del logits  # free them before the caches are joined
        self.cache = _join_caches(caches)
        if repeats > 1:
            self.cache.batch_repeat_interleave(repeats)
        self.mask = prompts.mask.repeat_interleave(repeats, 0)
        self.position = prompts.positions[:, -1:].repeat_interleave(repeats, 0)
        return first_logits

    def append(self, token: Tensor) -> Tensor:
        """Append a token to each row, ``[rows]``; logits of the next one."""
        ones = self.mask.new_ones(len(self.mask), 1)
        self.mask = torch.cat([self.mask, ones], 1)
        self.position = self.position + 1
        # a state-space model has no keys to hide, and would apply the mask to the new token
        mask = None if self.next_logits.cache_name == "cache_params" else self.mask
        return self.next_logits(token[:, None], mask, self.position, self.cache)

    def reserve(self, num_tokens: int) -> None:
        """Nothing: the cache grows with each token."""

    def keep_rows(self, order: Sequence[int]) -> None:
        """Drop all rows that are not in ``order``."""
        rows = torch.tensor(order, device=self.mask.device)
        self.mask, self.position = self.mask[rows], self.position[rows]
        self.cache.batch_select_indices(rows)


def _join_caches(caches: list[Any]) -> Any:
    """Append the rows of all caches to the first one, layer by layer, so that only one layer is in memory twice."""
    if len(caches) == 1:
        return caches[0]
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        first, *others = layers
        if not first.is_initialized:
            continue
        for name in ("keys", "values"):
            setattr(first, name, torch.cat([getattr(layer, name) for layer in layers]))
            for layer in others:
                setattr(layer, name, None)
    return caches[0]
