"""Score text with a causal language model: groups to trees cut to its length, trees to scores in packed batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_align.data.label_conversion import without_labels
from lit_align.data.packing import pack
from lit_align.data.solution_steps import LINES, StepSettings
from lit_align.data.tokenize import ChatTokenizer
from lit_align.types import Batch, Branch, Group, Tree

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase

UNLIMITED = 2**31  # a max_length that no conversation reaches


def tokenize_groups(
    groups: Sequence[Group],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    as_chat: bool = True,
    steps: StepSettings | None = None,
) -> tuple[list[Tree], Tensor]:
    """A tree for each group, and the number of tokens cut off each response or its prompt, ``[responses]``.

    A response loses its end. A prompt that fills half of ``max_length`` or more, and leaves too little room for its
    responses, loses its beginning.

    Args:
        groups: with responses, and with their steps if these are scored.
        tokenizer: of the model that scores.
        max_length: tokens of a prompt and one response.
        as_chat: whether plain text is read as turns of a chat.
        steps: how responses are put together from steps; None if responses are scored.
    """
    settings = steps or LINES
    chat = ChatTokenizer(
        tokenizer, max_length=UNLIMITED, allow_empty=True, as_chat=as_chat, steps=settings
    )
    trees: list[Tree] = []
    tokens_cut: list[float] = []
    for group in groups:
        plain = without_labels(group)
        full = chat.encode(plain._replace(steps=group.steps) if steps else plain).tree
        tree = _cut(full, max_length)
        trees.append(tree)
        tokens_cut += _tokens_cut(full, tree)
    return trees, torch.tensor(tokens_cut)


def score_trees(
    trees: Sequence[Tree],
    score: Callable[[Batch], Tensor],
    token_budget: int,
    dense: bool,
    by_step: bool = False,
) -> Tensor:
    """Apply ``score`` to packed batches; the scores are in the order of ``trees``.

    Args:
        trees: to score.
        score: gives ``[responses, ...]`` for a batch, or ``[scored tokens, ...]``.
        token_budget: tokens in one forward pass, if no tree is larger.
        dense: how they are packed, see `lit_align.data.packing.pack`.
        by_step: whether each scored token has a score, rather than each response.
    """
    sizes = [tree.tokens for tree in trees]
    budget = max([token_budget, *sizes])
    scores: dict[int, Tensor] = {}
    for batch in pack(trees, budget, dense=dense):
        counts = [tree.num_scored if by_step else len(tree.responses) for tree in batch.source]
        by_tree = torch.split(score(batch), counts)
        for tree, tree_scores in zip(batch.source, by_tree, strict=True):
            scores[id(tree)] = tree_scores
    return torch.cat([scores[id(tree)] for tree in trees])


def by_response(scores: Tensor, trees: Sequence[Tree]) -> list[list[float]]:
    """The scores of each response, all trees in order, from those of all their scored tokens.

    Args:
        scores: as `score_trees` gives them ``by_step``, ``[scored tokens]``.
        trees: that were scored.
    """
    counts = [sum(marks) for tree in trees for marks in tree.scored]
    return [each.tolist() for each in torch.split(scores, counts)]


def limit_to_positions(model: PreTrainedModel, max_length: int) -> int:
    """``max_length``, or the number of positions that the model has if that is smaller."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(max_length, positions or max_length)


def _tokens_cut(full: Tree, tree: Tree) -> list[float]:
    """Tokens that each response and its prompts have lost."""
    counts = []
    for number in range(len(full.responses)):
        lengths = [_num_tokens(each.parts_of(number)) for each in (full, tree)]
        counts.append(float(lengths[0] - lengths[1]))
    return counts


def _num_tokens(parts: Sequence[Branch]) -> int:
    return sum(len(part.prompt) + len(part.ids) for part in parts)


def _cut(tree: Tree, max_length: int) -> Tree:
    """The tree with no branch longer than ``max_length``."""
    longest_response = max(map(len, tree.responses))
    prompt = _cut_prompt(tree.prompt, longest_response, max_length)
    response_length = max(max_length - len(prompt), 1)
    responses = [ids[:response_length] for ids in tree.responses]
    scored = [mask[:response_length] for mask in tree.scored]
    branches = []
    for branch in tree.branches:
        start = _cut_prompt(branch.prompt, len(branch.ids), max_length)
        room = max(max_length - len(start), 1)
        branches.append(Branch(branch.response, start, branch.ids[:room], branch.scored[:room]))
    return tree._replace(
        prompt=prompt, responses=responses, scored=scored, branches=tuple(branches)
    )


def _cut_prompt(prompt: list[int], response_length: int, max_length: int) -> list[int]:
    return prompt[-max(max_length - response_length, max_length // 2, 1) :]
