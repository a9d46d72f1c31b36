"""Few shapes of micro-batches: rows are padded to lengths, and micro-batches to numbers of rows, of geometric grids.

On a GPU each new shape costs: the allocator cuts new blocks, and kernels are chosen or compiled anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LENGTH_MULTIPLE = 16
"""Tokens; tensor cores and masks of attention work on rows of such lengths without a copy."""

SHORTEST_ROW = 64
LENGTH_RATIO = 4 / 3
COUNT_RATIO = 3 / 2
ATTENTION_LENGTH = 2048
"""Tokens of a row at which attention over it counts as much as all else; larger models reach that at longer rows."""


class RowShape(NamedTuple):
    """Shape of a micro-batch.

    Args:
        rows: how many.
        length: tokens of each.
    """

    rows: int
    length: int

    @property
    def cost(self) -> float:
        """Of one pass, in tokens."""
        return self.rows * self.length * (1 + self.length / ATTENTION_LENGTH)


def row_lengths(budget: int) -> list[int]:
    """Lengths of rows under a token budget; the longest holds all of it.

    Example:
        >>> row_lengths(300)
        [64, 96, 128, 160, 208, 272, 304]
    """
    lengths: list[int] = []
    length = float(SHORTEST_ROW)
    while length < budget:
        lengths.append(_round_up(length))
        length *= LENGTH_RATIO
    longest = _round_up(budget)
    return [*(length for length in lengths if length < longest), longest]


def row_counts(most: int) -> list[int]:
    """Numbers of rows of a micro-batch that may have up to ``most``.

    Example:
        >>> row_counts(16)
        [1, 2, 3, 4, 6, 9, 13, 16]
    """
    counts = [1]
    while counts[-1] < most:
        ratio_or_one_more = max(int(counts[-1] * COUNT_RATIO), counts[-1] + 1)
        counts.append(min(ratio_or_one_more, most))
    return counts


def micro_batch_shapes(num_rows: int, length: int, budget: int) -> list[RowShape]:
    """Shapes of the micro-batches of ``num_rows`` rows; the last may have rows of padding.

    Example:
        >>> micro_batch_shapes(num_rows=10, length=128, budget=1024)
        [RowShape(rows=8, length=128), RowShape(rows=2, length=128)]
    """
    most = max(budget // length, 1)
    counts = row_counts(most)
    shapes = []
    for start in range(0, num_rows, most):
        remaining = min(num_rows - start, most)
        rows = next(count for count in counts if count >= remaining)
        shapes.append(RowShape(rows, length))
    return shapes


def total_cost(shapes: Sequence[RowShape]) -> float:
    """Cost of one pass over all the micro-batches, in tokens."""
    return sum(shape.cost for shape in shapes)


def _round_up(length: float) -> int:
    return int(-(-length // LENGTH_MULTIPLE)) * LENGTH_MULTIPLE
