"""Packed prefix trees as tensors: their attention mask, and the same trees unrolled to one response a row."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_align.types import PackedTrees

FLEX_BLOCK_SIZE = 128
"""FlexAttention's kernels work on blocks of this many queries and keys."""


def attention_mask(trees: PackedTrees, window: int | None = None) -> Tensor:
    """Boolean attention mask, ``[rows, length, length]``: query token q may attend to key token k.

    A token attends to the earlier tokens of its own prompt and its own response, and to itself. Padding attends to
    padding, so that every token has something to attend to.

    Args:
        trees: packed trees.
        window: positions that a sliding-window layer looks back, the token itself included. Positions are not columns:
            between a response and its prompt there may be other responses.

    Example:
        A prompt of one token with two responses of one token; the second does not attend to the first.

        >>> scored = map(torch.tensor, ([0, 0], [6, 7], [0, 1]))
        >>> trees = PackedTrees(*map(torch.tensor, ([[5, 6, 7]], [[0, 1, 1]], [[0, 0, 0]], [[-1, 0, 1]])), *scored, 2)
        >>> attention_mask(trees).int().tolist()
        [[[1, 0, 0], [1, 1, 0], [1, 0, 1]]]
    """
    tree, response = trees.tree, trees.response
    column = torch.arange(tree.shape[1], device=tree.device)
    is_earlier = column[:, None] >= column
    same_tree = tree[:, :, None] == tree[:, None]
    key_in_prompt = response[:, None] < 0
    same_response = response[:, :, None] == response[:, None]
    mask = is_earlier & same_tree & (key_in_prompt | same_response)
    if window is not None:
        position = trees.position_ids
        distance = position[:, :, None] - position[:, None]
        mask &= distance < window
    return mask


def last_tokens(trees: PackedTrees) -> PackedTrees:
    """The same trees with the last token of each response as the place to predict from.

    Example:
        >>> scored = map(torch.tensor, ([0, 0], [6, 7], [0, 1]))
        >>> trees = PackedTrees(*map(torch.tensor, ([[5, 6, 7]], [[0, 1, 1]], [[0, 0, 0]], [[-1, 0, 1]])), *scored, 2)
        >>> last_tokens(trees).predictor
        tensor([1, 2])
    """
    response = trees.response.flatten()
    ids = trees.input_ids.flatten()
    column = torch.arange(len(ids), device=ids.device)
    # prompts and padding have a place of their own behind the responses: to leave them out, the host would wait
    place = torch.where(response >= 0, response, trees.responses)
    last = column.new_zeros(trees.responses + 1)
    last = last.scatter_reduce(0, place, column, "amax")[: trees.responses]
    owner = torch.arange(trees.responses, device=ids.device)
    return trees._replace(predictor=last, target=ids[last], owner=owner, longest=1)


def scored_tokens(trees: PackedTrees) -> PackedTrees:
    """The same trees with each scored token as the place that is read, instead of the token that predicts it.

    The tokens of a response must follow each other, without parts that have prompts of their own.

    Example:
        >>> scored = map(torch.tensor, ([0, 0], [6, 7], [0, 1]))
        >>> trees = PackedTrees(*map(torch.tensor, ([[5, 6, 7]], [[0, 1, 1]], [[0, 0, 0]], [[-1, 0, 1]])), *scored, 2)
        >>> scored_tokens(trees).predictor
        tensor([1, 2])
    """
    response, position = trees.response.flatten(), trees.position_ids.flatten()
    column = torch.arange(len(response), device=response.device)
    place = torch.where(response >= 0, response, trees.responses)
    first = column.new_full((trees.responses + 1,), len(column))
    first = first.scatter_reduce(0, place, column, "amin")[trees.owner]
    offset = position[trees.predictor] + 1 - position[first]
    return trees._replace(predictor=first + offset)


def unroll(trees: PackedTrees) -> PackedTrees:
    """The same responses one a row, each after a copy of its prompt, ``[parts, longest]``, padded on the right.

    Scored tokens keep their order, so that log-probabilities of the two layouts compare one to one.

    Example:
        >>> scored = map(torch.tensor, ([0, 0], [6, 7], [0, 1]))
        >>> trees = PackedTrees(*map(torch.tensor, ([[5, 6, 7]], [[0, 1, 1]], [[0, 0, 0]], [[-1, 0, 1]])), *scored, 2)
        >>> unroll(trees).input_ids.tolist(), unroll(trees).predictor.tolist()
        ([[5, 6], [5, 7]], [0, 2])
    """
    ids = trees.input_ids.flatten()
    position = trees.position_ids.flatten()
    tree = trees.tree.flatten()
    response = trees.response.flatten()
    in_response = response >= 0
    # a response whose parts have prompts of their own is in several trees, and has a row for each
    num_trees = int(tree.max()) + 1
    key = response * (num_trees + 1) + tree
    key_of_scored = trees.owner * (num_trees + 1) + tree[trees.predictor]
    keys = torch.cat([key[in_response], key_of_scored])
    number = torch.arange(trees.responses, device=ids.device)
    without_tokens = number[~torch.isin(number, keys // (num_trees + 1))]
    keys = torch.cat([keys, without_tokens * (num_trees + 1) + num_trees])
    keys = torch.unique(keys)
    same_tree = (keys % (num_trees + 1))[:, None] == tree
    same_response = (keys // (num_trees + 1))[:, None] == response
    belongs = same_tree & (~in_response | same_response)  # [parts, rows * length]
    row, source = belongs.nonzero(as_tuple=True)
    length = int(position.max()) + 1
    cell = row * length + position[source]
    response_of_cell = torch.where(in_response[source], response[source], -1)

    def scatter(values: Tensor, padding: int) -> Tensor:
        cells = values.new_full((len(keys) * length,), padding)
        return cells.index_copy(0, cell, values).view(-1, length)

    return PackedTrees(
        input_ids=scatter(ids[source], 0),
        position_ids=scatter(position[source], 0),
        tree=scatter(row, -1),
        response=scatter(response_of_cell, -1),
        predictor=torch.searchsorted(keys, key_of_scored) * length + position[trees.predictor],
        target=trees.target,
        owner=trees.owner,
        responses=trees.responses,
        longest=trees.longest,
    )


def pad_rows(trees: PackedTrees, multiple: int) -> PackedTrees:
    """The same trees with rows padded until their length is a multiple of ``multiple``.

    Example:
        >>> scored = map(torch.tensor, ([3], [9], [0]))
        >>> two_rows = map(torch.tensor, ([[5, 6], [8, 9]], [[0, 1], [0, 1]], [[0, 0], [1, 1]], [[-1, -1], [-1, 0]]))
        >>> longer = pad_rows(PackedTrees(*two_rows, *scored, 1), 3)
        >>> longer.tree.tolist(), longer.predictor.tolist()
        ([[0, 0, -1], [1, 1, -1]], [4])
    """
    length = trees.tree.shape[1]
    padding = -length % multiple
    if not padding:
        return trees

    def pad(values: Tensor, value: int) -> Tensor:
        return torch.nn.functional.pad(values, (0, padding), value=value)

    return trees._replace(
        input_ids=pad(trees.input_ids, 0),
        position_ids=pad(trees.position_ids, 0),
        tree=pad(trees.tree, -1),
        response=pad(trees.response, -1),
        predictor=trees.predictor + trees.predictor // length * padding,
    )
