"""Pack trees side by side into rows under a token budget: little or no padding, and each prompt is computed once."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from lit_align.batch_labels import UNRANKED, PairLabels, RankLabels, Sides, UnpairedLabels
from lit_align.data.row_shapes import RowShape, micro_batch_shapes, row_lengths, total_cost
from lit_align.errors import DataError
from lit_align.types import Batch, Group, PackedTrees, Tree

Item = TypeVar("Item")


def pack(
    trees: Sequence[Tree],
    budget: int,
    multiple: int = 1,
    dense: bool = False,
    few_shapes: bool = False,
) -> list[Batch]:
    """Fill micro-batches under a token budget, the largest trees first, each where it fits tightest.

    Args:
        trees: each goes into exactly one micro-batch.
        budget: tokens that a micro-batch may hold; padding to ``multiple`` comes on top.
        multiple: rows are padded until their length is a multiple of this.
        dense: lay a micro-batch out in several rows as long as the largest tree instead of in one. Attention that
            computes every pair of columns costs the square of a row; block-sparse attention skips what is masked,
            and one row needs no padding.
        few_shapes: of ``dense`` micro-batches; they are padded to those of `row_shapes`.

    Raises:
        DataError: if a tree alone is larger than the budget.

    Example:
        >>> from lit_align.types import Group
        >>> tree = Tree([1, 2], [[3]], [[True]], Group("", [""]))
        >>> [batch.trees.input_ids.tolist() for batch in pack([tree] * 3, budget=7)]
        [[[1, 2, 3, 1, 2, 3]], [[1, 2, 3]]]
    """
    if dense and few_shapes:
        return _pack_to_grid(trees, budget)
    length = _longest(trees) if dense else budget
    rows = _best_fit(trees, min(length, budget))
    rows_per_batch = max(budget // max(length, 1), 1)
    batches = []
    for batch_rows in split_every(rows, rows_per_batch):
        batches.append(pack_rows(batch_rows, multiple))
    return batches


def _pack_to_grid(trees: Sequence[Tree], budget: int) -> list[Batch]:
    """Micro-batches of the shapes of `row_shapes`, those that cost least for these trees."""
    longest = _longest(trees)
    cheapest: tuple[list[list[Tree]], list[RowShape]] | None = None
    for length in row_lengths(max(budget, 1)):
        is_last = length >= budget
        if length >= longest or is_last:
            rows = _best_fit(trees, min(length, budget))
            shapes = micro_batch_shapes(len(rows), length, budget)
            if cheapest is None or total_cost(shapes) < total_cost(cheapest[1]):
                cheapest = rows, shapes
    assert cheapest is not None  # the last length is always tried
    rows, shapes = cheapest
    parts = split_every(rows, max(budget // shapes[0].length, 1)) if rows else []
    return [pack_rows(part, shape=shape) for part, shape in zip(parts, shapes, strict=True)]


def pack_rows(
    rows: Sequence[Sequence[Tree]], multiple: int = 1, shape: RowShape | None = None
) -> Batch:
    """Lay out each row's trees in order, ``[rows, length]``; shorter rows end in padding.

    Args:
        rows: the trees of each row.
        multiple: ``length`` is rounded up to a multiple of this.
        shape: number and length of the rows; None takes no more of either than needed.
    """
    if shape is None:
        longest = max(map(_total_tokens, rows), default=0)
        shape = RowShape(len(rows), -(-longest // multiple) * multiple)
    length = shape.length
    packer = _Packer(length)
    labels = _LabelCollector()
    source: list[Tree] = []
    for trees in rows:
        for tree in trees:
            labels.add(tree, packer.num_responses)
            packer.add_tree(tree)
            source.append(tree)
        packer.end_row()
    for _ in range(shape.rows - len(rows)):
        packer.end_row()
    packed = packer.packed()
    return Batch(packed, tuple(source), *labels.tensors(packed.owner))


def separate_branches(trees: Sequence[Tree]) -> list[Tree]:
    """Demonstrations with each branch as a tree of its own; trees with labels stay as they are.

    The loss of demonstrations is a sum over tokens, so their branches need not be in one micro-batch.

    Example:
        >>> from lit_align.types import Branch
        >>> branch = Branch(0, [1, 2, 3], [4], [True])
        >>> [tree.prompt for tree in separate_branches([Tree([1], [[2]], [[True]], Group("", [""]), 0, (branch,))])]
        [[1], [1, 2, 3]]
    """
    separated = []
    for tree in trees:
        if tree.group.items or not tree.branches:
            separated.append(tree)
            continue
        if any(map(any, tree.scored)):
            separated.append(tree._replace(branches=()))
        for branch in tree.branches:
            if any(branch.scored):
                separated.append(Tree(branch.prompt, [branch.ids], [branch.scored], tree.group))
    return separated


def split_every(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive parts of ``size`` items; the last may be smaller."""
    parts = []
    for start in range(0, len(items), size):
        parts.append(items[start : start + size])
    return parts


def _longest(trees: Sequence[Tree]) -> int:
    return max((tree.tokens for tree in trees), default=0)


def _total_tokens(trees: Sequence[Tree]) -> int:
    return sum(tree.tokens for tree in trees)


class _Packer:
    """Appends trees to flat lists of tokens, row by row; tokens are indexed through all rows."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.tree_of: list[int] = []
        self.response_of: list[int] = []
        self.predictor: list[int] = []
        self.target: list[int] = []
        self.owner: list[int] = []
        self.num_rows = 0
        self.num_trees = 0
        self.num_responses = 0

    def add_tree(self, tree: Tree) -> None:
        """Append prompt and responses, and the branches: trees of their own, whose tokens count for the response."""
        scored: list[list[tuple[int, int]]] = []
        fork = self._add_prompt(tree.prompt)
        for ids, mask in zip(tree.responses, tree.scored, strict=True):
            scored.append(self._add_part(ids, mask, len(scored), fork, len(tree.prompt)))
        for branch in tree.branches:
            fork = self._add_prompt(branch.prompt)
            number = branch.response
            tokens = self._add_part(branch.ids, branch.scored, number, fork, len(branch.prompt))
            scored[number] += tokens
        for tokens in scored:
            for predictor, target in tokens:
                self.predictor.append(predictor)
                self.target.append(target)
                self.owner.append(self.num_responses)
            self.num_responses += 1

    def _add_prompt(self, ids: list[int]) -> int:
        """Append the prompt of a new tree; the place of its last token, which predicts the first of every response."""
        self.ids += ids
        self.positions += range(len(ids))
        self.response_of += [-1] * len(ids)
        self.tree_of += [self.num_trees] * len(ids)
        self.num_trees += 1
        return len(self.ids) - 1

    def _add_part(
        self, ids: list[int], mask: list[bool], number: int, fork: int, prompt_length: int
    ) -> list[tuple[int, int]]:
        """Append tokens of the tree's response ``number``; predictor and id of those that are scored."""
        start = len(self.ids)
        self.ids += ids
        self.positions += range(prompt_length, prompt_length + len(ids))
        self.response_of += [self.num_responses + number] * len(ids)
        self.tree_of += [self.num_trees - 1] * len(ids)
        scored = []
        for i, is_scored in enumerate(mask):
            if is_scored:
                scored.append((start + i - 1 if i else fork, ids[i]))
        return scored

    def end_row(self) -> None:
        """Fill the row with padding."""
        self.num_rows += 1
        padding = self.num_rows * self.length - len(self.ids)
        self.ids += [0] * padding
        self.positions += [0] * padding
        self.tree_of += [-1] * padding
        self.response_of += [-1] * padding

    def packed(self) -> PackedTrees:
        """The lists as tensors."""
        shape = (self.num_rows, self.length)
        return PackedTrees(
            input_ids=_to_tensor(self.ids).view(shape),
            position_ids=_to_tensor(self.positions).view(shape),
            tree=_to_tensor(self.tree_of).view(shape),
            response=_to_tensor(self.response_of).view(shape),
            predictor=_to_tensor(self.predictor),
            target=_to_tensor(self.target),
            owner=_to_tensor(self.owner),
            responses=self.num_responses,
            longest=max(Counter(self.owner).values(), default=0),
        )


class _LabelCollector:
    """Collects the labels of a batch, with responses numbered as in the batch."""

    def __init__(self) -> None:
        self.pairs: list[tuple[int, int, float, float, int]] = []
        self.judged_responses: list[int] = []
        self.desirable: list[bool] = []
        self.mismatched: list[int] = []
        self.rankings: list[list[tuple[int, int]]] = []  # (place, response), best first

    def add(self, tree: Tree, first: int) -> None:
        """Add the labels of ``tree``, whose first response has the number ``first`` in the batch."""
        group = tree.group
        self._add_pairs(group, first)
        self.judged_responses += range(first, first + len(group.desirable))
        self.desirable += group.desirable
        end = first + len(tree.responses)
        self.mismatched += range(end - tree.mismatched, end)
        if group.ranking:
            self.rankings.append(_sort_ranking(group.ranking, first))

    def _add_pairs(self, group: Group, first: int) -> None:
        target = -1 if group.target is None else first + group.target
        for pair in group.pairs:
            chosen = first + pair.better
            rejected = first + pair.worse
            self.pairs.append((chosen, rejected, pair.probability, pair.margin, target))

    def tensors(
        self, owner: Tensor
    ) -> tuple[PairLabels | None, UnpairedLabels | None, RankLabels | None]:
        """Labels of each kind; None where there are none.

        Args:
            owner: ``[n]``, the response that each scored token belongs to.
        """
        return self._pair_labels(owner), self._unpaired_labels(owner), self._rank_labels(owner)

    def _pair_labels(self, owner: Tensor) -> PairLabels | None:
        if not self.pairs:
            return None
        columns = [torch.tensor(column) for column in zip(*self.pairs, strict=True)]
        chosen, rejected, probability, margin, target = columns
        are_certain = not bool((probability < 1).any())
        tokens = _tokens_of(owner, chosen, rejected)
        return PairLabels(chosen, rejected, probability, margin, target, are_certain, tokens)

    def _unpaired_labels(self, owner: Tensor) -> UnpairedLabels | None:
        if not self.desirable:
            return None
        response = _to_tensor(self.judged_responses)
        desirable = torch.tensor(self.desirable)
        places = Sides(_places(desirable), _places(~desirable))
        tokens = _tokens_of(owner, response[places.chosen], response[places.rejected])
        return UnpairedLabels(response, desirable, _to_tensor(self.mismatched), places, tokens)

    def _rank_labels(self, owner: Tensor) -> RankLabels | None:
        if not self.rankings:
            return None
        longest = max(map(len, self.rankings))
        padded = []
        for ranking in self.rankings:
            padding = [(UNRANKED, -1)] * (longest - len(ranking))
            padded.append(ranking + padding)
        place, order = torch.tensor(padded).permute(2, 0, 1).contiguous()
        best = _to_tensor([ranking[0][1] for ranking in self.rankings])
        last = _to_tensor([ranking[-1][1] for ranking in self.rankings])
        return RankLabels(order, place, _tokens_of(owner, best, last))


def _sort_ranking(ranking: Sequence[int], first: int) -> list[tuple[int, int]]:
    """Places and numbers of the responses, best first."""
    places = []
    for response, place in enumerate(ranking, first):
        places.append((place or UNRANKED, response))
    return sorted(places)


def _tokens_of(owner: Tensor, chosen: Tensor, rejected: Tensor) -> Sides:
    """Scored tokens of the responses of each side, whose owners are in ``owner``."""
    return Sides(_places(torch.isin(owner, chosen)), _places(torch.isin(owner, rejected)))


def _places(flags: Tensor) -> Tensor:
    """Where ``flags`` is true, ascending."""
    return flags.nonzero()[:, 0]


def largest_first(trees: Sequence[Tree]) -> list[int]:
    """Indices of the trees from the largest to the smallest; equal ones in their order."""
    sizes = [tree.tokens for tree in trees]
    return sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)


def _to_tensor(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long)


def _best_fit(trees: Sequence[Tree], budget: int) -> list[list[Tree]]:
    """Best-fit decreasing bin packing into rows; at most 11/9 of the fewest possible rows, plus one.

    Rows and the trees in them keep the order of ``trees``.
    """
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for i in largest_first(trees):
        size = trees[i].tokens
        if size > budget:
            raise DataError(
                f"{trees[i].group.source or 'a group'} has {size} tokens with all its responses, over the "
                f"token_budget of {budget}; raise token_budget or lower max_length"
            )
        tightest = bisect_left(free, (size, 0))
        if tightest < len(free):
            tokens_left, row = free.pop(tightest)
        else:
            tokens_left, row = budget, len(rows)
            rows.append([])
        rows[row].append(i)
        insort(free, (tokens_left - size, row))
    ordered = sorted(sorted(row) for row in rows)
    return [[trees[i] for i in row] for row in ordered]
