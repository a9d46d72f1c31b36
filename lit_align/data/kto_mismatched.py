"""Each prompt with a response to another one, for losses that ask what the policy gains on any text."""

from __future__ import annotations

from collections.abc import Sequence

from lit_align.errors import DataError
from lit_align.types import Tree


def mismatched(trees: Sequence[Tree], max_length: int) -> list[Tree]:
    """Trees with one more branch: the first response of the next tree that has another prompt.

    It is the same in every epoch and order, so that its reference log-probabilities can be kept. Its end is cut where
    it would make the branch longer than ``max_length``.

    Args:
        trees: in the order of the file.
        max_length: tokens that a prompt and one response may have together.

    Raises:
        DataError: if all prompts are the same.

    Example:
        >>> from lit_align.types import Group
        >>> a, b = (Tree([n], [[n + 1]], [[True]], Group("", [""])) for n in (1, 5))
        >>> [tree.responses for tree in mismatched([a, b], 9)]
        [[[2], [6]], [[6], [2]]]
    """
    if not trees or all(tree.prompt == trees[0].prompt for tree in trees):
        raise DataError(
            "every row has the same prompt, and this loss reads responses to others; give more prompts"
        )
    nearest = list(
        range(len(trees))
    )  # of each tree, the next one with another prompt; the last ones wrap around
    after = next(i for i, tree in enumerate(trees) if tree.prompt != trees[-1].prompt)
    for i in reversed(range(len(trees))):
        following = trees[(i + 1) % len(trees)]
        nearest[i] = after if following.prompt == trees[i].prompt else (i + 1) % len(trees)
        after = nearest[i]
    return [
        _with(tree, trees[nearest[i]], max_length - len(tree.prompt))
        for i, tree in enumerate(trees)
    ]


def _with(tree: Tree, other: Tree, room: int) -> Tree:
    response, scored = other.responses[0][:room], other.scored[0][:room]
    if not any(scored):
        return tree  # nothing of it would be measured
    return tree._replace(
        responses=[*tree.responses, response], scored=[*tree.scored, scored], mismatched=1
    )
