"""Packed prefix trees as tensors: who sees whom, and the same trees written out one response a row."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_align.types import PackedTrees

FLEX_BLOCK_SIZE = 128
"""FlexAttention's kernels work on blocks of this many queries and keys."""


def visible(trees: PackedTrees, window: int | None = None) -> Tensor:
    """Which tokens each token attends to, ``[rows, length, length]``: row q, column k is True if q sees k.

    A token sees what came before it of its own prompt and its own response, and itself. Padding sees padding, so that
    no token is left without anything to attend to.

    Args:
        trees: what is attended within.
        window: how many positions back a windowed layer looks, the token itself included. Positions are not columns:
            between a response and its prompt may lie other responses.

    Example:
        A prompt of one token with two responses of one token; the second does not see the first.

        >>> scored = map(torch.tensor, ([0, 0], [6, 7], [0, 1]))
        >>> trees = PackedTrees(*map(torch.tensor, ([[5, 6, 7]], [[0, 1, 1]], [[0, 0, 0]], [[-1, 0, 1]])), *scored, 2)
        >>> visible(trees).int().tolist()
        [[[1, 0, 0], [1, 1, 0], [1, 0, 1]]]
    """
    column = torch.arange(trees.tree.shape[1], device=trees.tree.device)
    earlier = column[:, None] >= column
    same_tree = trees.tree[:, :, None] == trees.tree[:, None]
    on_the_way = (trees.response[:, None] < 0) | (
        trees.response[:, :, None] == trees.response[:, None]
    )
    seen = earlier & same_tree & on_the_way
    if window is not None:
        seen &= trees.position_ids[:, :, None] - trees.position_ids[:, None] < window
    return seen


def last_tokens(trees: PackedTrees) -> PackedTrees:
    """The same trees, read at the last token of each response instead of where scored tokens are predicted.

    Example:
        >>> scored = map(torch.tensor, ([0, 0], [6, 7], [0, 1]))
        >>> trees = PackedTrees(*map(torch.tensor, ([[5, 6, 7]], [[0, 1, 1]], [[0, 0, 0]], [[-1, 0, 1]])), *scored, 2)
        >>> last_tokens(trees).predictor
        tensor([1, 2])
    """
    response, ids = trees.response.flatten(), trees.input_ids.flatten()
    column = torch.arange(len(ids), device=ids.device)
    answered = response >= 0
    last = column.new_zeros(trees.responses).scatter_reduce(
        0, response[answered], column[answered], "amax"
    )
    owner = torch.arange(trees.responses, device=ids.device)
    return trees._replace(predictor=last, target=ids[last], owner=owner)


def unroll(trees: PackedTrees) -> PackedTrees:
    """The same responses one a row, each after a copy of its prompt, ``[responses, longest]``; rows end in padding.

    Scored tokens keep their order, so that log-probabilities of the two layouts compare one to one.

    Example:
        >>> scored = map(torch.tensor, ([0, 0], [6, 7], [0, 1]))
        >>> trees = PackedTrees(*map(torch.tensor, ([[5, 6, 7]], [[0, 1, 1]], [[0, 0, 0]], [[-1, 0, 1]])), *scored, 2)
        >>> unroll(trees).input_ids.tolist(), unroll(trees).predictor.tolist()
        ([[5, 6], [5, 7]], [0, 2])
    """
    ids, position, tree, response = (field.flatten() for field in trees[:4])
    number = torch.arange(trees.responses, device=ids.device)
    answered = response >= 0
    tree_of = torch.full_like(number, -2).index_copy(0, response[answered], tree[answered])
    part = (tree_of[:, None] == tree) & (
        (response < 0) | (response == number[:, None])
    )  # [responses, rows * length]
    row, source = part.nonzero(as_tuple=True)
    length = int(position.max()) + 1
    cell = row * length + position[source]

    def written(values: Tensor, empty: int) -> Tensor:
        return (
            values.new_full((trees.responses * length,), empty)
            .index_copy(0, cell, values)
            .view(-1, length)
        )

    return PackedTrees(
        input_ids=written(ids[source], 0),
        position_ids=written(position[source], 0),
        tree=written(row, -1),
        response=written(torch.where(response[source] < 0, -1, row), -1),
        predictor=trees.owner * length + position[trees.predictor],
        target=trees.target,
        owner=trees.owner,
        responses=trees.responses,
    )


def lengthen(trees: PackedTrees, multiple: int) -> PackedTrees:
    """The same trees with rows padded until their length is a multiple of ``multiple``.

    Example:
        >>> scored = map(torch.tensor, ([3], [9], [0]))
        >>> two_rows = map(torch.tensor, ([[5, 6], [8, 9]], [[0, 1], [0, 1]], [[0, 0], [1, 1]], [[-1, -1], [-1, 0]]))
        >>> longer = lengthen(PackedTrees(*two_rows, *scored, 1), 3)
        >>> longer.tree.tolist(), longer.predictor.tolist()
        ([[0, 0, -1], [1, 1, -1]], [4])
    """
    length = trees.tree.shape[1]
    more = -length % multiple
    if not more:
        return trees
    ids, position, tree, response = (
        torch.nn.functional.pad(field, (0, more), value=empty)
        for field, empty in zip(trees[:4], (0, 0, -1, -1), strict=True)
    )
    predictor = trees.predictor + trees.predictor // length * more
    return trees._replace(
        input_ids=ids, position_ids=position, tree=tree, response=response, predictor=predictor
    )
