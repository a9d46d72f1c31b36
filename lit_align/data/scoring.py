"""Text as packed trees, for rewards that read it with a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_align.data.packing import pack
from lit_align.data.tokenize import ChatTokenizer
from lit_align.types import Batch, Group, Tree

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WHOLE = 2**31  # no conversation has so many tokens


def read(
    groups: Sequence[Group], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[Tree], Tensor]:
    """A tree for each group, and how many tokens of each response or its prompt were too many, ``[responses]``.

    A response loses its end; a prompt that fills half of ``max_length`` or more, and leaves too little room for its
    responses, its beginning.
    """
    chat = ChatTokenizer(tokenizer, max_length=WHOLE, silent=True)
    whole = [
        chat.encode(Group(group.prompt, group.responses, source=group.source)).tree
        for group in groups
    ]
    trees = [_cut(tree, max_length) for tree in whole]
    lost = [
        float(len(before.prompt) - len(after.prompt) + len(ids) - len(kept))
        for before, after in zip(whole, trees, strict=True)
        for ids, kept in zip(before.responses, after.responses, strict=True)
    ]
    return trees, torch.tensor(lost)


def scored(
    trees: Sequence[Tree], score: Callable[[Batch], Tensor], token_budget: int, dense: bool
) -> Tensor:
    """What ``score`` says of each response, ``[responses, ...]``, in the order of ``trees``; packing has its own."""
    found: dict[int, Tensor] = {}
    for batch in pack(trees, max([token_budget, *(tree.tokens for tree in trees)]), dense=dense):
        of_each = torch.split(score(batch), [len(tree.responses) for tree in batch.source])
        found |= zip(map(id, batch.source), of_each, strict=True)
    return torch.cat([found[id(tree)] for tree in trees])


def longest(model: PreTrainedModel, max_length: int) -> int:
    """Tokens that a model is to read: no more than it has positions for."""
    return min(
        max_length,
        getattr(model.config.get_text_config(), "max_position_embeddings", None) or max_length,
    )


def _cut(tree: Tree, max_length: int) -> Tree:
    wanted = max(map(len, tree.responses))
    shared = max(max_length - wanted, max_length // 2, 1)
    prompt = tree.prompt[-shared:]
    room = max(max_length - len(prompt), 1)
    return tree._replace(
        prompt=prompt,
        responses=[ids[:room] for ids in tree.responses],
        scored=[marks[:room] for marks in tree.scored],
    )
