"""Keys and values of the tokens so far, written in place: nothing is copied when a token is appended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from lit_align.models.decoding.buffer_length import buffer_length, round_up
from lit_align.models.decoding.row_order import move_rows


@dataclass
class Room:
    """What the layers of a cache have in common; the cache itself would keep itself and its memory alive through them.

    Args:
        rows: completions that are decoded.
        limit: largest number of tokens of a row.
        capacity: tokens of a row for which there is room.
        is_aligned: whether attention reads lengths that are rounded up; a mask must then hide what is not written yet.
        prompts: rows of the prompts that are being read; None once all are read.
    """

    rows: int
    limit: int
    capacity: int
    is_aligned: bool
    prompts: slice | None = None

    def visible_length(self, length: int) -> int:
        """Length of the keys that attention reads when ``length`` are written."""
        return round_up(length) if self.is_aligned else length

    def write_prompts(self, buffer: Tensor, states: Tensor) -> None:
        """Write states of the prompts that are being read to the rows of each of their completions."""
        num_prompts, *shape = states.shape
        rows = buffer[self.prompts, :, : states.shape[2]]
        rows.view(num_prompts, -1, *shape).copy_(states[:, None])


class BufferedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one attention layer in buffers that have room for more.

    Args:
        room: what all layers have in common.
    """

    def __init__(self, room: Room) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room = room
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers."""
        self.keys = self._allocate(key_states)
        self.values = self._allocate(value_states)
        self.is_initialized = True

    def _allocate(self, like: Tensor) -> Tensor:
        # zeros: what is not written yet may be read behind a mask
        shape = (self.room.rows, like.shape[1], self.room.capacity, like.shape[3])
        return torch.zeros(shape, dtype=like.dtype, device=like.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write keys and values, ``[rows, heads, tokens, d]``; returns those of all tokens so far.

        Args:
            key_states: of the new tokens.
            value_states: likewise.
            args: transformers passes more to some caches.
            kwargs: likewise.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        room = self.room
        if room.prompts is not None:
            room.write_prompts(self.keys, key_states)
            room.write_prompts(self.values, value_states)
            return key_states, value_states
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        visible = room.visible_length(end)
        return self.keys[:, :, :visible], self.values[:, :, :visible]

    def grow(self) -> None:
        """Move to buffers of the cache's capacity."""
        if self.keys is None or self.values is None:
            return
        for name in ("keys", "values"):
            buffer = getattr(self, name)
            larger = self._allocate(buffer)
            larger[:, :, : self.length] = buffer[:, :, : self.length]
            setattr(self, name, larger)

    def keep_rows(self, order: Sequence[int]) -> None:
        """Drop all rows that are not in ``order``."""
        if self.keys is not None and self.values is not None:
            self.keys = move_rows(self.keys, order)
            self.values = move_rows(self.values, order)

    def get_seq_length(self) -> int:
        """Tokens so far."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys after ``query_length`` more tokens, for the mask."""
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        """There is no limit."""
        return -1


class BufferedCache(Cache):
    """A cache of attention layers whose rows are read once for each prompt and written once for each completion.

    Args:
        num_layers: attention layers of the model.
        rows: completions.
        width: tokens of the longest prompt.
        limit: largest number of tokens of a row.
        is_aligned: see `Room`.
    """

    def __init__(
        self, num_layers: int, rows: int, width: int, limit: int, is_aligned: bool
    ) -> None:
        self.room = Room(rows, limit, buffer_length(width, limit), is_aligned)
        self.buffers = [BufferedLayer(self.room) for _ in range(num_layers)]
        super().__init__(layers=list(self.buffers))

    def read_prompts(self, rows: slice) -> None:
        """What is written next are prompts, whose completions have these rows."""
        self.room.prompts = rows

    def finish_prompts(self, width: int) -> None:
        """All prompts are read; from now on tokens are appended."""
        self.room.prompts = None
        for layer in self.buffers:
            layer.length = width

    def reserve(self, length: int) -> None:
        """Make room for ``length`` tokens; one layer at a time is in memory twice."""
        room = self.room
        length = min(length, room.limit)
        if length > room.capacity:
            room.capacity = buffer_length(length, room.limit)
            for layer in self.buffers:
                layer.grow()

    def keep_rows(self, order: Sequence[int]) -> None:
        """Drop all rows that are not in ``order``; see `move_rows`."""
        self.room.rows = len(order)
        for layer in self.buffers:
            layer.keep_rows(order)


def is_buffered(cache: DynamicCache, limit: int) -> bool:
    """Whether a model's layers keep what `BufferedLayer` keeps: keys and values of all tokens up to ``limit``.

    Args:
        cache: transformers' choice for the model, empty.
        limit: largest number of tokens of a row; a layer with a sliding window drops none up to its window.
    """
    return bool(cache.layers) and all(_keeps_all(layer, limit) for layer in cache.layers)


def _keeps_all(layer: Any, limit: int) -> bool:
    if type(layer) is DynamicSlidingWindowLayer:
        return limit < int(layer.sliding_window)
    return type(layer) is DynamicLayer
