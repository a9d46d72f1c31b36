"""Prompts of one batch as tensors, read a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Prompts(NamedTuple):
    """Prompts, padded on the left.

    Args:
        ids: ``[prompts, width]``.
        mask: likewise, 0 is padding.
        positions: likewise, counted without the padding.
        is_padded: whether there is padding.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    is_padded: bool

    @classmethod
    def pad(cls, prompts: Sequence[Sequence[int]], device: torch.device) -> Prompts:
        """Prompts of token ids as one tensor."""
        width = max(map(len, prompts))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, width - len(prompt) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        is_padded = any(len(prompt) < width for prompt in prompts)
        return cls(ids.to(device), mask.to(device), positions.to(device), is_padded)

    def repeat(self, times: int) -> Prompts:
        """Each prompt so many times."""
        ids, mask, positions = (
            tensor.repeat_interleave(times, 0) for tensor in (self.ids, self.mask, self.positions)
        )
        return Prompts(ids, mask, positions, self.is_padded)

    def parts(self, token_budget: int) -> Iterator[tuple[int, Prompts]]:
        """As many prompts at a time as have ``token_budget`` tokens, at least one, and the place of the first."""
        count = max(1, token_budget // self.ids.shape[1])
        for start in range(0, len(self.ids), count):
            rows = slice(start, start + count)
            part = Prompts(self.ids[rows], self.mask[rows], self.positions[rows], self.is_padded)
            yield start, part


class Limits(NamedTuple):
    """Sizes of a batch.

    Args:
        num_generations: completions of each prompt.
        max_new_tokens: limit of a completion.
        token_budget: tokens of prompts that are read at once; at least those of one prompt.
    """

    num_generations: int
    max_new_tokens: int
    token_budget: int


def repeat_rows(parts: list[Tensor], times: int) -> Tensor:
    """The rows of all parts, each so many times in a row."""
    rows = parts[0] if len(parts) == 1 else torch.cat(parts)
    return rows if times == 1 else rows.repeat_interleave(times, 0)
