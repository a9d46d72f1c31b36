"""Drop rows of tensors in place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def move_rows(rows: Tensor, order: Sequence[int]) -> Tensor:
    """Keep the rows in ``order``, moving only those that change places; the result shares the memory of ``rows``.

    Args:
        rows: their first dimension is that of the rows.
        order: rows to keep; one that moves comes to a place before its own, whose row is not kept.

    Example:
        >>> import torch
        >>> move_rows(torch.tensor([5, 6, 7, 8]), [0, 3, 2])
        tensor([5, 8, 7])
    """
    for place, source in enumerate(order):
        if place != source:
            rows[place].copy_(rows[source])
    return rows[: len(order)]
