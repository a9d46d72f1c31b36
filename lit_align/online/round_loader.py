"""Rounds of on-line training as steps: what a round holds is made when it begins, and saved with the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lit_align.data.loader import StepLoader
from lit_align.errors import DataError
from lit_align.types import Tree

Row = dict[str, Any]


@dataclass
class Kept:
    """What was made: whoever makes the rounds saves it, since Lightning restores no loader that was at an epoch's end.

    Args:
        made: the round that the rows belong to.
        rows: of that round.
        past: of all earlier ones, if they are kept.
    """

    made: int = -1
    rows: list[Row] = field(default_factory=list)
    past: list[Row] = field(default_factory=list)


class Rounds(StepLoader):
    """Steps whose trees are made anew for every epoch, which is a round.

    Every round has as many steps as its prompts fill; where some got no label, the others are spread over them, and
    where there are not even as many as steps, the last steps are empty.

    Args:
        prompts: every prompt there is; a round takes the next ``size`` of a shuffled pass, and begins another pass when
            they are used up.
        size: prompts in a round.
        make: rows of a round, given its number, its prompts and the rows of all earlier rounds that are kept.
        understand: the trees that rows stand for.
        keeps: whether they are.
        kept: what has been made so far.
        settings: as for `StepLoader`.

    Raises:
        DataError: when there is nothing to learn from in the very first round.
    """

    def __init__(
        self,
        prompts: Sequence[Tree],
        size: int,
        make: Callable[[int, list[Tree], list[Row]], list[Row]],
        understand: Callable[[list[Row]], list[Tree]],
        keeps: bool = False,
        kept: Kept | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(prompts, **settings)
        self.size, self.make, self.understand = min(size, len(prompts)), make, understand
        self.keeps, self.kept = keeps, kept or Kept()

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def prompts(self, number: int) -> list[Tree]:
        """Those of one round."""
        first, last = number * self.size, (number + 1) * self.size
        passes = range(first // len(self.trees), (last - 1) // len(self.trees) + 1)
        order = [i for one in passes for i in self._epoch_order(one)]
        skip = first - passes[0] * len(self.trees)
        return [self.trees[i] for i in order[skip : skip + self.size]]

    def _trees_by_step(self) -> list[list[Tree]]:
        """The steps of this round; the rows are made unless a checkpoint brought them."""
        kept = self.kept
        if kept.made != self.epoch:
            past = kept.past + (kept.rows if self.keeps else [])
            rows = self.make(self.epoch, self.prompts(self.epoch), past)
            kept.made, kept.rows, kept.past = self.epoch, rows, past
        trees = self.understand(kept.rows)
        if not trees and not self.epoch:
            raise DataError(
                f"none of the {self.size} prompts of the first round got a label; their records in rounds/ say why"
            )
        return [
            [trees[i] for i in part.tolist()]
            for part in torch.arange(len(trees)).tensor_split(len(self))
        ]

    def _order_settings(self) -> dict[str, int]:
        return {**super()._order_settings(), "round_size": self.size}
