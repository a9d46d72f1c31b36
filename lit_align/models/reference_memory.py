"""Log-probabilities under the reference model that later epochs read again instead of computing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_align.models.reference_cache import KEY_BYTES, tree_key
from lit_align.types import Tree

MAX_NUMBERS = 2**24
"""Numbers that are remembered, 64 MiB in float32."""
ENTRY_NUMBERS = 64
"""What the entry of a tree takes besides, as a count of numbers."""


class ReferenceMemory:
    """Log-probabilities of trees under one reference model, in memory and in checkpoints.

    In another batch a row has the same log-probability but for round-off, so an exact resumption needs the numbers of
    the run that it continues: they are part of its checkpoint. What would take more than 64 MiB is not remembered.

    Args:
        max_numbers: limit of the numbers that are remembered, each entry counted as ``ENTRY_NUMBERS`` more.

    Example:
        >>> from lit_align.types import Group
        >>> memory, tree = ReferenceMemory(), Tree([1], [[2], [3]], [[True], [True]], Group("", ["", ""]))
        >>> first_epoch = memory.get_or_compute([tree], [2], lambda: torch.tensor([-1.0, -2.0]))
        >>> memory.get_or_compute([tree], [2], None)
        tensor([-1., -2.])
    """

    def __init__(self, max_numbers: int = MAX_NUMBERS) -> None:
        self._numbers_left = max_numbers
        self._values: dict[bytes, Tensor] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get_or_compute(
        self, trees: Sequence[Tree], sizes: Sequence[int], compute: Callable[[], Tensor] | None
    ) -> Tensor:
        """Numbers of ``trees`` one after the other, of the first time that each was computed.

        Args:
            trees: of a micro-batch.
            sizes: how many numbers each has.
            compute: computes those of all ``trees``; called unless all are remembered.
        """
        keys = [tree_key(tree) for tree in trees]
        parts = [self._values.get(key) for key in keys]
        if all(part is not None for part in parts):
            return torch.cat([part for part in parts if part is not None])
        assert compute is not None
        computed = torch.split(compute(), list(sizes))
        numbers: list[Tensor] = []
        for key, values in zip(keys, computed, strict=True):
            self._add(key, values)
            numbers.append(self._values.get(key, values))
        return torch.cat(numbers)

    def _add(self, key: bytes, values: Tensor) -> None:
        size = len(values) + ENTRY_NUMBERS
        if key in self._values or size > self._numbers_left:
            return
        self._numbers_left -= size
        self._values[key] = values.detach().clone()  # not a view that keeps all of its micro-batch

    def state(self) -> dict[str, Tensor]:
        """All that is remembered, as tensors on the CPU."""
        if not self._values:
            return {}
        keys = bytearray(b"".join(self._values))
        return {
            "keys": torch.frombuffer(keys, dtype=torch.uint8),
            "sizes": torch.tensor([len(values) for values in self._values.values()]),
            "values": torch.cat(list(self._values.values())).cpu(),
        }

    def restore(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Remember what `state` returned."""
        if not state:
            return
        keys = state["keys"].numpy().tobytes()
        values = torch.split(state["values"].to(device), state["sizes"].tolist())
        for index, part in enumerate(values):
            self._add(keys[index * KEY_BYTES : (index + 1) * KEY_BYTES], part)
