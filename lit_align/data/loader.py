"""Resumable loader of optimizer steps; their order depends on seed and epoch alone, so a run resumes exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from lit_align.checks import check_at_least
from lit_align.data.lazy_sequence import LazySequence
from lit_align.data.packing import largest_first, pack, separate_branches, split_every
from lit_align.data.tree_store import TreeStore
from lit_align.errors import DataError
from lit_align.types import Step, Tree

EPOCH_SEED_STRIDE = 100003  # seeds of different runs share no epoch's order


class StepLoader:
    """A sized, sharded loader of steps, which can start anywhere, on any number of processes.

    Every group is in one step an epoch, on one rank; the last step may be smaller. A rank's share of a step is balanced
    by tokens and may be empty where a step has fewer groups than there are ranks.

    Args:
        trees: all training examples.
        batch_size: groups in a step, all ranks together.
        token_budget: tokens in a micro-batch.
        rank: the rank whose share is returned.
        world: number of ranks.
        shuffle: whether each epoch has its own order.
        seed: of that order.
        multiple: rows are padded to a multiple of this many tokens.
        dense: whether micro-batches are packed for attention that computes every pair of columns.
        few_shapes: whether those are padded to few shapes, as a GPU wants them.
        resumes: whether iterating continues where it stopped, as training does; validation starts over.

    Raises:
        DataError: if there are no trees, or one alone is larger than the budget.
    """

    batch_sampler = None  # Lightning reads it of everything that has a sampler

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
        few_shapes: bool = False,
        resumes: bool = True,
    ) -> None:
        check_at_least("batch_size", batch_size, 1)
        if not trees:
            raise DataError("there is no group to learn from; give more data")
        # a tree over the budget is refused now, not in mid-epoch
        pack([_largest_tree(trees)], token_budget)
        self.trees = trees
        self.batch_size = batch_size
        self.token_budget = token_budget
        self.rank = rank
        self.world = world
        self.shuffle = shuffle
        self.seed = seed
        self.multiple = multiple
        self.dense = dense
        self.few_shapes = few_shapes
        self.resumes = resumes
        self.epoch = self.next = 0

    def __len__(self) -> int:
        return -(-len(self.trees) // self.batch_size)

    def __iter__(self) -> Iterator[Step]:
        steps = self._trees_by_step()
        for k in range(self.next, len(steps)):
            if self.resumes:
                # before the yield: Lightning requests no more steps than len(), so nothing runs after the last one
                self.next = k + 1
                if self.next == len(steps):
                    self.epoch, self.next = self.epoch + 1, 0
            yield self._make_step(steps[k])

    def _trees_by_step(self) -> Sequence[Sequence[Tree]]:
        """The trees of each step of this epoch, read when their step comes."""
        return _TreesByStep(self.trees, split_every(self._epoch_order(self.epoch), self.batch_size))

    def step_at(self, epoch: int, step: int) -> Step:
        """One step of an epoch as it will be yielded; the position stays as it is."""
        order = split_every(self._epoch_order(epoch), self.batch_size)
        return self._make_step([self.trees[index] for index in order[step]])

    @property
    def sampler(self) -> StepLoader:
        """The object whose `set_epoch` Lightning calls when an epoch begins."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch``, unless in it already."""
        if self.epoch != epoch:
            self.start_at(epoch)

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Yield from this step of this epoch on next; nothing of an epoch whose steps are all done."""
        self.epoch, self.next = epoch, step

    def _epoch_order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(len(self.trees)))
        generator = torch.Generator().manual_seed(self.seed * EPOCH_SEED_STRIDE + epoch)
        order: list[int] = torch.randperm(len(self.trees), generator=generator).tolist()
        return order

    def _make_step(self, trees: Sequence[Tree]) -> Step:
        share = balance_by_tokens(separate_branches(trees), self.world)[self.rank]
        batches = pack(share, self.token_budget, self.multiple, self.dense, self.few_shapes)
        return Step(
            tuple(batches),
            tokens=sum(tree.num_scored for tree in trees),
            items=sum(tree.group.items for tree in trees),
            groups=len(trees),
        )

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of the next step, for Lightning; a `Stage` saves the position itself.

        An epoch whose steps are all done is over, however the loader got there, so that equal runs save equal states.
        """
        if self.next == len(self):
            return {"epoch": self.epoch + 1, "next": 0}
        return {"epoch": self.epoch, "next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved step."""
        self.start_at(state["epoch"], state["next"])


def balance_by_tokens(trees: Sequence[Tree], world: int) -> list[list[Tree]]:
    """Split trees over ranks: the largest first, always to the rank with the fewest tokens.

    Example:
        >>> from lit_align.types import Group
        >>> trees = [Tree([1] * n, [], [], Group("", [])) for n in (1, 2, 4, 5)]
        >>> [[tree.tokens for tree in share] for share in balance_by_tokens(trees, world=2)]
        [[1, 5], [2, 4]]
    """
    rank_of: dict[int, int] = {}
    loads = [0] * world
    for i in largest_first(trees):
        rank = loads.index(min(loads))
        rank_of[i] = rank
        loads[rank] += trees[i].tokens
    shares: list[list[Tree]] = [[] for _ in range(world)]
    for i, tree in enumerate(trees):
        shares[rank_of[i]].append(tree)
    return shares


class _TreesByStep(LazySequence[Sequence[Tree]]):
    """The trees of each step, by their indices."""

    def __init__(self, trees: Sequence[Tree], indices: Sequence[Sequence[int]]) -> None:
        self.trees = trees
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> list[Tree]:
        """The trees of a step."""
        return [self.trees[i] for i in self.indices[index]]


def _largest_tree(trees: Sequence[Tree]) -> Tree:
    """The tree of the largest forward pass; a branch is one of its own."""
    if isinstance(trees, TreeStore):
        trees = [trees[int(trees.sizes.argmax())]]
    return max(separate_branches(trees), key=lambda tree: tree.tokens)
