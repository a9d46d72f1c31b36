"""Mismatched responses for KTO: each prompt also gets a response to another one, to estimate the KL term."""

from __future__ import annotations

from collections.abc import Sequence

from lit_align.errors import DataError
from lit_align.types import Tree


def add_mismatched_responses(trees: Sequence[Tree], max_length: int) -> list[Tree]:
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
    has_other_prompts = any(tree.prompt != trees[0].prompt for tree in trees)
    if not has_other_prompts:
        raise DataError(
            "every row has the same prompt, and this loss needs responses to other prompts; give more prompts"
        )
    donors = _next_with_another_prompt(trees)
    extended = []
    for tree, donor in zip(trees, donors, strict=True):
        max_tokens = max_length - len(tree.prompt)
        extended.append(_with_response_of(tree, trees[donor], max_tokens))
    return extended


def _next_with_another_prompt(trees: Sequence[Tree]) -> list[int]:
    """For each tree, the index of the next one with another prompt; the last ones wrap around."""
    count = len(trees)
    donors = list(range(count))
    prompts = [tree.prompt for tree in trees]
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
