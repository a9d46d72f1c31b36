"""Pack trees side by side into rows under a token budget: little or no padding, and each prompt is computed once."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_align.errors import DataError
from lit_align.types import (
    UNRANKED,
    Batch,
    PackedTrees,
    PairLabels,
    RankLabels,
    Tree,
    UnpairedLabels,
)


def pack(trees: Sequence[Tree], budget: int, multiple: int = 1, dense: bool = False) -> list[Batch]:
    """Fill micro-batches under a token budget, the largest trees first, each where it fits tightest.

    Args:
        trees: each goes into exactly one micro-batch.
        budget: tokens that a micro-batch may hold; padding to ``multiple`` comes on top.
        multiple: rows are padded until their length is a multiple of this.
        dense: lay a micro-batch out in several rows as long as the largest tree instead of in one. Attention that
            computes every pair of columns costs the square of a row; block-sparse attention skips what is masked,
            and one row needs no padding.

    Raises:
        DataError: if a tree alone is larger than the budget.

    Example:
        >>> from lit_align.types import Group
        >>> tree = Tree([1, 2], [[3]], [[True]], Group("", [""]))
        >>> [batch.trees.input_ids.tolist() for batch in pack([tree] * 3, budget=7)]
        [[[1, 2, 3, 1, 2, 3]], [[1, 2, 3]]]
    """
    length = max((tree.tokens for tree in trees), default=0) if dense else budget
    rows = [[trees[i] for i in row] for row in _best_fit(trees, min(length, budget))]
    rows_per_batch = max(budget // max(length, 1), 1)
    batches = []
    for k in range(0, len(rows), rows_per_batch):
        batches.append(pack_rows(rows[k : k + rows_per_batch], multiple))
    return batches


def pack_rows(rows: Sequence[Sequence[Tree]], multiple: int = 1) -> Batch:
    """Lay out each row's trees in order, ``[rows, length]``; shorter rows end in padding.

    Args:
        rows: the trees of each row.
        multiple: ``length`` is rounded up to a multiple of this.
    """
    longest = max((sum(tree.tokens for tree in row) for row in rows), default=0)
    packer = _Packer(len(rows), length=-(-longest // multiple) * multiple)
    labels = _LabelCollector()
    for row, trees in enumerate(rows):
        position = row * packer.length
        for tree in trees:
            labels.add(tree, packer.num_responses)
            position = packer.add(tree, position)
    source = tuple(tree for trees in rows for tree in trees)
    return Batch(packer.packed(), source, *labels.tensors())


class _Packer:
    """Writes trees into flat arrays of ``rows * length`` tokens; untouched places are padding."""

    def __init__(self, rows: int, length: int) -> None:
        size = rows * length
        self.rows, self.length = rows, length
        self.ids, self.positions = [0] * size, [0] * size
        self.tree_of, self.response_of = [-1] * size, [-1] * size
        self.predictor: list[int] = []
        self.target: list[int] = []
        self.owner: list[int] = []
        self.num_trees = self.num_responses = 0

    def add(self, tree: Tree, start: int) -> int:
        """Write ``tree`` from ``start`` on; return the place after it."""
        prompt_length, end = len(tree.prompt), start + tree.tokens
        self.tree_of[start:end] = [self.num_trees] * tree.tokens
        self.num_trees += 1
        place = start + prompt_length
        self.ids[start:place] = tree.prompt
        self.positions[start:place] = range(prompt_length)
        last_of_prompt = place - 1  # it predicts the first token of every response
        for response, scored in zip(tree.responses, tree.scored, strict=True):
            stop = place + len(response)
            self.ids[place:stop] = response
            self.positions[place:stop] = range(prompt_length, prompt_length + len(response))
            self.response_of[place:stop] = [self.num_responses] * len(response)
            for i, is_scored in enumerate(scored):
                if is_scored:
                    self.predictor.append(place + i - 1 if i else last_of_prompt)
                    self.target.append(response[i])
                    self.owner.append(self.num_responses)
            self.num_responses += 1
            place = stop
        return end

    def packed(self) -> PackedTrees:
        """The arrays as tensors."""

        def by_row(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long).view(self.rows, self.length)

        return PackedTrees(
            input_ids=by_row(self.ids),
            position_ids=by_row(self.positions),
            tree=by_row(self.tree_of),
            response=by_row(self.response_of),
            predictor=torch.tensor(self.predictor, dtype=torch.long),
            target=torch.tensor(self.target, dtype=torch.long),
            owner=torch.tensor(self.owner, dtype=torch.long),
            responses=self.num_responses,
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
        group, end = tree.group, first + len(tree.responses)
        target = -1 if group.target is None else first + group.target
        for better, worse, probability, margin in group.pairs:
            self.pairs.append((first + better, first + worse, probability, margin, target))
        self.judged_responses += range(first, first + len(group.desirable))
        self.desirable += group.desirable
        self.mismatched += range(end - tree.mismatched, end)
        if group.ranking:
            places = [(place or UNRANKED, first + i) for i, place in enumerate(group.ranking)]
            self.rankings.append(sorted(places))

    def tensors(self) -> tuple[PairLabels | None, UnpairedLabels | None, RankLabels | None]:
        """Labels of each kind; None where there are none."""
        pairs = unpaired = rankings = None
        if self.pairs:
            pairs = PairLabels(*map(torch.tensor, zip(*self.pairs, strict=True)))
        if self.desirable:
            unpaired = UnpairedLabels(
                torch.tensor(self.judged_responses),
                torch.tensor(self.desirable),
                torch.tensor(self.mismatched).long(),
            )
        if self.rankings:
            longest = max(map(len, self.rankings))
            padded = [
                ranking + [(UNRANKED, -1)] * (longest - len(ranking)) for ranking in self.rankings
            ]
            place, order = torch.tensor(padded).permute(2, 0, 1).contiguous()
            rankings = RankLabels(order, place)
        return pairs, unpaired, rankings


def _best_fit(trees: Sequence[Tree], budget: int) -> list[list[int]]:
    """Best-fit decreasing bin packing: rows of indices; at most 11/9 of the fewest possible rows, plus one."""
    sizes = [tree.tokens for tree in trees]
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if sizes[i] > budget:
            raise DataError(
                f"{trees[i].group.source or 'a group'} has {sizes[i]} tokens with all its responses, over the "
                f"token_budget of {budget}; raise token_budget or lower max_length"
            )
        tightest = bisect_left(free, (sizes[i], 0))
        if tightest < len(free):
            tokens_left, row = free.pop(tightest)
        else:
            tokens_left, row = budget, len(rows)
            rows.append([])
        rows[row].append(i)
        insort(free, (tokens_left - sizes[i], row))
    return sorted(sorted(row) for row in rows)
