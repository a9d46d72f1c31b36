"""Rounds of on-line training as steps: what a round holds is made when it begins, and saved with the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lit_align.batches import Tree
from lit_align.data.steps import Steps
from lit_align.errors import DataError

Row = dict[str, Any]


class Rounds(Steps):
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
        settings: as for `Steps`.

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
        **settings: Any,
    ) -> None:
        super().__init__(prompts, **settings)
        self.size, self.make, self.understand = min(size, len(prompts)), make, understand
        self.keeps = keeps
        self.rows: list[Row] = []
        self.past: list[Row] = []
        self.made = -1  # the round that the rows belong to

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def prompts(self, number: int) -> list[Tree]:
        """Those of one round."""
        first, last = number * self.size, (number + 1) * self.size
        passes = range(first // len(self.trees), (last - 1) // len(self.trees) + 1)
        order = [i for one in passes for i in self._order(one)]
        skip = first - passes[0] * len(self.trees)
        return [self.trees[i] for i in order[skip : skip + self.size]]

    def _parts(self) -> list[list[Tree]]:
        """The steps of this round; the rows are made unless a checkpoint brought them."""
        if self.made != self.epoch:
            self.past += self.rows if self.keeps else []
            self.rows, self.made = self.make(self.epoch, self.prompts(self.epoch), self.past), self.epoch
        trees = self.understand(self.rows)
        if not trees and not self.epoch:
            raise DataError(
                f"none of the {self.size} prompts of the first round got a label; their records in rounds/ say why"
            )
        return [[trees[i] for i in part.tolist()] for part in torch.arange(len(trees)).tensor_split(len(self))]

    def state_dict(self) -> dict[str, Any]:
        """Where the next step comes from, and what the round holds."""
        return {**super().state_dict(), "made": self.made, "rows": self.rows, "past": self.past}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there, mid-round too."""
        super().load_state_dict(state)
        self.made, self.rows, self.past = state["made"], state["rows"], state["past"]

    def _identity(self) -> dict[str, int]:
        return {**super()._identity(), "round_size": self.size}
