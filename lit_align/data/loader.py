"""Optimiser steps in an order that depends on seed and epoch alone, so that a run resumes exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from lit_align.data.packing import pack
from lit_align.errors import ConfigError, DataError
from lit_align.types import Step, Tree


class Steps:
    """A sized, sharded loader of steps that can be saved and continued, also on another number of processes.

    Every group is in one step an epoch, on one rank; the last step may be smaller. A rank's share of a step is balanced
    by tokens and may be empty where a step has fewer groups than there are ranks.

    Args:
        trees: everything there is to learn from.
        batch_size: groups in a step, all ranks together.
        token_budget: tokens in a micro-batch.
        rank: whose share is given out.
        world: how many share.
        shuffle: whether each epoch has its own order.
        seed: of that order.
        multiple: rows are padded to a multiple of this many tokens.
        dense: whether micro-batches are laid out for attention that computes every pair of columns.
        resumes: whether iterating goes on where it stopped, as training does; validation starts over.

    Raises:
        DataError: if there is nothing to learn from, or a tree alone is larger than the budget.
    """

    batch_sampler = None  # Lightning asks for it where there is a sampler

    def __init__(
        self,
        trees: Sequence[Tree],
        *,
        batch_size: int,
        token_budget: int,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        multiple: int = 1,
        dense: bool = False,
        resumes: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
        if not trees:
            raise DataError("there is no group to learn from; give more data")
        pack(
            [max(trees, key=lambda tree: tree.tokens)], token_budget
        )  # refuses now what no step could hold later
        self.trees, self.batch_size, self.token_budget = trees, batch_size, token_budget
        self.rank, self.world, self.shuffle, self.seed = rank, world, shuffle, seed
        self.multiple, self.dense, self.resumes = multiple, dense, resumes
        self.epoch = self.next = 0

    def __len__(self) -> int:
        return -(-len(self.trees) // self.batch_size)

    def __iter__(self) -> Iterator[Step]:
        parts = self._parts()
        for k in range(self.next, len(parts)):
            if self.resumes:
                # before the yield: a sized loader is asked for no more than it has, so nothing runs after the last one
                self.epoch, self.next = (
                    (self.epoch, k + 1) if k + 1 < len(parts) else (self.epoch + 1, 0)
                )
            yield self._step(parts[k])

    def _parts(self) -> list[list[Tree]]:
        """The steps of this epoch."""
        order, size = self._order(self.epoch), self.batch_size
        return [[self.trees[i] for i in order[k : k + size]] for k in range(0, len(order), size)]

    @property
    def sampler(self) -> Steps:
        """Whom Lightning tells which epoch begins; it does not restore a loader that was saved at an epoch's end."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Begin ``epoch``, unless in the middle of one."""
        if self.next == 0:
            self.epoch = epoch

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(len(self.trees)))
        generator = torch.Generator().manual_seed(self.seed * 100003 + epoch)
        return torch.randperm(len(self.trees), generator=generator).tolist()

    def _step(self, trees: list[Tree]) -> Step:
        return Step(
            tuple(
                pack(
                    deal(trees, self.world)[self.rank], self.token_budget, self.multiple, self.dense
                )
            ),
            tokens=sum(sum(map(sum, tree.scored)) for tree in trees),
            items=sum(tree.group.items for tree in trees),
            groups=len(trees),
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the next step comes from; the same on all ranks."""
        return {"epoch": self.epoch, "next": self.next, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there.

        Raises:
            ConfigError: if the order of steps is not that of the saved run.
        """
        for name, value in self._identity().items():
            if state[name] != value:
                raise ConfigError(
                    f"the checkpoint was made with {name} {state[name]}, this run has {value}; "
                    "resume with the same data settings, or start a new run from the adapter"
                )
        self.epoch, self.next = state["epoch"], state["next"]

    def _identity(self) -> dict[str, int]:
        """What the order depends on."""
        return {
            "groups": len(self.trees),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }


def deal(trees: Sequence[Tree], world: int) -> list[list[Tree]]:
    """Each rank's share: the largest tree first, always to the rank with the fewest tokens.

    Example:
        >>> from lit_align.types import Group
        >>> trees = [Tree([1] * n, [], [], Group("", [])) for n in (1, 2, 4, 5)]
        >>> [[tree.tokens for tree in share] for share in deal(trees, world=2)]
        [[1, 5], [2, 4]]
    """
    shares: list[list[int]] = [[] for _ in range(world)]
    loads = [0] * world
    for i in sorted(range(len(trees)), key=lambda i: (-trees[i].tokens, i)):
        rank = loads.index(min(loads))
        shares[rank].append(i)
        loads[rank] += trees[i].tokens
    return [[trees[i] for i in sorted(share)] for share in shares]
