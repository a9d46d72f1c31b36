"""Mismatched responses for KTO: each prompt also gets a response to another one, to estimate the KL term."""

from __future__ import annotations

from collections.abc import Sequence

from lit_align.data.lazy_sequence import LazySequence
from lit_align.errors import DataError
from lit_align.types import Tree


def add_mismatched_responses(trees: Sequence[Tree], max_length: int) -> Sequence[Tree]:
    """Trees with one more branch: the first response of the next tree that has another prompt.

    It is the same in every epoch and order, so its reference log-probabilities can be cached. Its end is cut off where
    it would make the branch longer than ``max_length``.

    Args:
        trees: in the order of the file.
        max_length: tokens that a prompt and one response may have together.

    Raises:
        DataError: if all prompts are the same.

    Example:
        >>> from lit_align.types import Group
        >>> a, b = (Tree([n], [[n + 1]], [[True]], Group("", [""])) for n in (1, 5))
        >>> [tree.responses for tree in add_mismatched_responses([a, b], 9)]
        [[[2], [6]], [[6], [2]]]
    """
    prompts = [hash(tuple(tree.prompt)) for tree in trees]
    if len(set(prompts)) == 1:
        raise DataError(
            "every row has the same prompt, and this loss needs responses to other prompts; give more prompts"
        )
    return _Extended(trees, _next_with_another_prompt(prompts), max_length)


class _Extended(LazySequence[Tree]):
    """Trees with the first response of another one, made when they are used."""

    def __init__(self, trees: Sequence[Tree], donors: Sequence[int], max_length: int) -> None:
        self.trees = trees
        self.donors = donors
        self.max_length = max_length

    def __len__(self) -> int:
        return len(self.trees)

    def read(self, index: int) -> Tree:
        """A tree with its mismatched response."""
        tree, donor = self.trees[index], self.trees[self.donors[index]]
        return _with_response_of(tree, donor, self.max_length - len(tree.prompt))


def _next_with_another_prompt(prompts: Sequence[int]) -> list[int]:
    """For each prompt, by its hash, the index of the next other one; the last ones wrap around."""
    count = len(prompts)
    donors = list(range(count))
    donor = next(i for i, prompt in enumerate(prompts) if prompt != prompts[-1])
    for i in reversed(range(count)):
        following = (i + 1) % count
        if prompts[following] != prompts[i]:
            donor = following
        donors[i] = donor
    return donors


def _with_response_of(tree: Tree, donor: Tree, max_tokens: int) -> Tree:
    response = donor.responses[0][:max_tokens]
    scored = donor.scored[0][:max_tokens]
    if not any(scored):
        return tree  # it would have no log-probability
    return tree._replace(
        responses=[*tree.responses, response],
        scored=[*tree.scored, scored],
        mismatched=1,
    )
