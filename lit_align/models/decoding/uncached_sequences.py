"""Sequences of a model that takes no cache: each token needs a pass over all tokens before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_align.models.decoding.prompts import Limits, Prompts

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel


class UncachedSequences:
    """Sequences that are read anew for each token, one at a time and without padding, which some models cannot skip.

    Args:
        model: a causal language model.
    """

    can_drop = True

    def __init__(self, model: PreTrainedModel) -> None:
        self.model: Any = model
        self.rows: list[Tensor] = []

    def read(self, prompts: Prompts, limits: Limits) -> Tensor:
        """Read the prompts; logits of the first new token, ``[prompts * generations, vocabulary]``."""
        for ids, mask in zip(prompts.ids, prompts.mask, strict=True):
            num_tokens = int(mask.sum())
            self.rows += [ids[-num_tokens:]] * limits.num_generations
        return self._next_logits()

    def append(self, token: Tensor) -> Tensor:
        """Append a token to each row, ``[rows]``; logits of the next one."""
        self.rows = [
            torch.cat([ids, last]) for ids, last in zip(self.rows, token[:, None], strict=True)
        ]
        return self._next_logits()

    def _next_logits(self) -> Tensor:
        logits = [self.model(input_ids=ids[None]).logits[0, -1] for ids in self.rows]
        return torch.stack(logits).float()

    def reserve(self, num_tokens: int) -> None:
        """Nothing is kept for which there would have to be room."""

    def keep_rows(self, order: Sequence[int]) -> None:
        """Drop all rows that are not in ``order``."""
        self.rows = [self.rows[row] for row in order]
