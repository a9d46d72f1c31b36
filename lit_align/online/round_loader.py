"""Rounds of on-line training as steps; a round is made when it begins, and saved with the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from lit_align.data.loader import StepLoader
from lit_align.errors import DataError
from lit_align.online.records import Record
from lit_align.types import Tree


@dataclass
class RoundState:
    """Records of the rounds so far; saved by the data module.

    Args:
        number: the round that ``records`` belong to; -1 before the first.
        records: of that round.
        past: of all earlier rounds, if they are saved.
        reference_round: the newest round whose reference was moved; sampling may be interrupted after that.
    """

    number: int = -1
    records: list[Record] = field(default_factory=list)
    past: list[Record] = field(default_factory=list)
    reference_round: int = 0


class RoundLoader(StepLoader):
    """Steps whose trees are made anew for every epoch, which is a round.

    Every round has as many steps as its prompts fill. If some prompts got no label, the others are spread over these
    steps; if there are fewer than steps, the last steps are empty.

    Args:
        prompts: all prompts; a round takes the next ``size`` of a shuffled pass, and starts another pass at the end.
        size: prompts in a round.
        make_round: makes the records of a round, given its number, its prompts and the saved records of earlier rounds.
        make_trees: the trees that records are trained as.
        save_past: whether the records of earlier rounds are saved.
        state: records so far.
        settings: as for `StepLoader`.

    Raises:
        DataError: if no prompt of the first round got a label.
    """

    def __init__(
        self,
        prompts: Sequence[Tree],
        size: int,
        make_round: Callable[[int, list[Tree], list[Record]], list[Record]],
        make_trees: Callable[[list[Record]], list[Tree]],
        save_past: bool = False,
        state: RoundState | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(prompts, **settings)
        self.size = min(size, len(prompts))
        self.make_round, self.make_trees = make_round, make_trees
        self.save_past, self.state = save_past, state or RoundState()

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def prompts(self, number: int) -> list[Tree]:
        """Prompts of one round."""
        start = number * self.size
        last = start + self.size - 1
        first_pass, last_pass = start // len(self.trees), last // len(self.trees)
        order: list[int] = []
        for pass_number in range(first_pass, last_pass + 1):
            order += self._epoch_order(pass_number)
        offset = start - first_pass * len(self.trees)
        return [self.trees[index] for index in order[offset : offset + self.size]]

    def _trees_by_step(self) -> list[list[Tree]]:
        """Trees of the steps of this round; its records are made unless a checkpoint brought them."""
        state = self.state
        if state.number != self.epoch:
            past = list(state.past)
            if self.save_past:
                past += state.records
            records = self.make_round(self.epoch, self.prompts(self.epoch), past)
            state.number = self.epoch
            state.records, state.past = records, past
        trees = self.make_trees(state.records)
        if not trees and self.epoch == 0:
            raise DataError(
                f"none of the {self.size} prompts of the first round got a label; "
                "their records in rounds/ give the reasons"
            )
        steps = []
        for indices in torch.arange(len(trees)).tensor_split(len(self)):
            steps.append([trees[index] for index in indices.tolist()])
        return steps
