"""Trees laid side by side in rows until a token budget is full: nothing is padded and no prompt is read twice."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import torch

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
        trees: what has to be in some micro-batch, once.
        budget: tokens that a micro-batch may hold; padding to ``multiple`` comes on top.
        multiple: rows are padded until their length is a multiple of this.
        dense: lay a micro-batch out in several rows as long as the largest tree instead of in one. Attention that
            computes every pair of columns costs the square of a row; block-sparse attention skips what is not seen,
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
    rows = [[trees[i] for i in row] for row in _fill(trees, min(length, budget))]
    together = max(budget // max(length, 1), 1)
    return [pack_rows(rows[k : k + together], multiple) for k in range(0, len(rows), together)]


def pack_rows(rows: Sequence[Sequence[Tree]], multiple: int = 1) -> Batch:
    """Lay out each row's trees in order, ``[rows, length]``; shorter rows end in padding.

    Args:
        rows: the trees of each row.
        multiple: ``length`` is rounded up to a multiple of this.
    """
    longest = max((sum(tree.tokens for tree in row) for row in rows), default=0)
    length = -(-longest // multiple) * multiple
    size = len(rows) * length
    ids, positions, owner_tree, owner_response = [0] * size, [0] * size, [-1] * size, [-1] * size
    predictor: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    labels = _Labels()
    at_tree = at_response = 0
    for row, trees in enumerate(rows):
        at = row * length
        for tree in trees:
            shared, end = len(tree.prompt), at + tree.tokens
            ids[at:end] = [
                *tree.prompt,
                *(token for response in tree.responses for token in response),
            ]
            owner_tree[at:end] = [at_tree] * tree.tokens
            positions[at : at + shared] = range(shared)
            labels.add(tree, at_response)
            fork = at + shared - 1  # the prompt's last token predicts the first of every response
            at += shared
            for response, scored in zip(tree.responses, tree.scored, strict=True):
                positions[at : at + len(response)] = range(shared, shared + len(response))
                owner_response[at : at + len(response)] = [at_response] * len(response)
                learned = [i for i, is_learned in enumerate(scored) if is_learned]
                predictor += [at + i - 1 if i else fork for i in learned]
                target += [response[i] for i in learned]
                owner += [at_response] * len(learned)
                at += len(response)
                at_response += 1
            at_tree += 1
    shape = (len(rows), length)
    packed = PackedTrees(
        input_ids=torch.tensor(ids, dtype=torch.long).view(shape),
        position_ids=torch.tensor(positions, dtype=torch.long).view(shape),
        tree=torch.tensor(owner_tree, dtype=torch.long).view(shape),
        response=torch.tensor(owner_response, dtype=torch.long).view(shape),
        predictor=torch.tensor(predictor, dtype=torch.long),
        target=torch.tensor(target, dtype=torch.long),
        owner=torch.tensor(owner, dtype=torch.long),
        responses=at_response,
    )
    return Batch(packed, tuple(tree for trees in rows for tree in trees), *labels.tensors())


class _Labels:
    """What is known of the responses, numbered as they are in the batch."""

    def __init__(self) -> None:
        self.pairs: list[tuple[int, int, float, float, int]] = []
        self.unpaired: list[tuple[int, bool]] = []
        self.mismatched: list[int] = []
        self.rankings: list[list[tuple[int, int]]] = []  # (place, response)

    def add(self, tree: Tree, first: int) -> None:
        """Enter ``tree``, whose first response is the batch's ``first``."""
        group, end = tree.group, first + len(tree.responses)
        target = -1 if group.target is None else first + group.target
        self.pairs += [
            (first + a, first + b, probability, margin, target)
            for a, b, probability, margin in group.pairs
        ]
        self.unpaired += [(first + i, thumb) for i, thumb in enumerate(group.desirable)]
        self.mismatched += range(end - tree.mismatched, end)
        if group.ranking:
            self.rankings.append(
                sorted((place or UNRANKED, first + i) for i, place in enumerate(group.ranking))
            )

    def tensors(self) -> tuple[PairLabels | None, UnpairedLabels | None, RankLabels | None]:
        """The columns, each None where there is nothing."""
        longest = max(map(len, self.rankings), default=0)
        ranked = [one + [(UNRANKED, -1)] * (longest - len(one)) for one in self.rankings]
        return (
            PairLabels(*map(torch.tensor, zip(*self.pairs, strict=True))) if self.pairs else None,
            UnpairedLabels(
                torch.tensor([response for response, _ in self.unpaired]),
                torch.tensor([thumb for _, thumb in self.unpaired]),
                torch.tensor(self.mismatched).long(),
            )
            if self.unpaired
            else None,
            RankLabels(*torch.tensor(ranked).permute(2, 0, 1).flip(0)) if ranked else None,
        )


def _fill(trees: Sequence[Tree], budget: int) -> list[list[int]]:
    """Best-fit decreasing: rows of indices, by their first tree; at most 11/9 of the fewest possible, plus one."""
    sizes = [tree.tokens for tree in trees]
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if sizes[i] > budget:
            raise DataError(
                f"{trees[i].group.source or 'a group'} has {sizes[i]} tokens with all its responses, over the "
                f"token_budget of {budget}; raise token_budget or lower max_length"
            )
        fit = bisect_left(room, (sizes[i], 0))
        left, row = room.pop(fit) if fit < len(room) else (budget, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(i)
        insort(room, (left - sizes[i], row))
    return sorted(sorted(row) for row in rows)
