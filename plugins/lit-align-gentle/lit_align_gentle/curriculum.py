"""Comparisons from the clearest to the closest (Pattnaik et al., 2024, https://arxiv.org/abs/2403.07230)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lit_align.data.datamodules import Comparisons
from lit_align.data.ledger import Ledger
from lit_align.data.text_module import TextModule
from lit_align.errors import DataError
from lit_align.types import LabelKind, Tree


class Curriculum(Comparisons):
    """Comparisons in order of their margin, the largest first, in every epoch (Pattnaik et al., 2024).

    https://arxiv.org/abs/2403.07230 trains in stages by the difference of two ratings; here the order is a single one.

    Args:
        shuffle: must stay false.
        settings: those of Comparisons.

    Raises:
        ValueError: if shuffle is true.
    """

    def __init__(self, train: str | list[str], shuffle: bool = False, **settings: Any) -> None:
        if shuffle:
            raise ValueError("a curriculum has an order of its own; leave shuffle false")
        super().__init__(train, shuffle=False, **settings)

    def read_trees(
        self,
        split: str,
        label_kind: LabelKind,
        module: TextModule,
        on_ledger: Callable[[Ledger], object],
    ) -> Sequence[Tree]:
        """Rows in order of their margin.

        Raises:
            DataError: if no comparison has one.
        """
        trees = super().read_trees(split, label_kind, module, on_ledger)
        if split != "train":
            return trees
        ordered = sorted(trees, key=_margin, reverse=True)  # rows of one margin keep their order
        if not any(map(_margin, ordered)):
            raise DataError("no comparison has a margin to order it by; give a column margin")
        return ordered


def _margin(tree: Tree) -> float:
    return max((abs(pair.margin) for pair in tree.group.pairs), default=0.0)
