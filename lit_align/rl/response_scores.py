"""Scores of responses by a reward, checked and on the CPU, which processes may share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_align.errors import ModelError
from lit_align.processes import Processes
from lit_align.rewards import Reward, Scores
from lit_align.rewards.base import checked_scores
from lit_align.types import Tree


def score_trees(reward: Reward, trees: Sequence[Tree]) -> Scores:
    """Scores of all responses of ``trees``, in order.

    Raises:
        ModelError: if the reward does not give each response, or each token, one finite number.
    """
    scores = checked_scores(reward, [tree.group for tree in trees])
    tokens = None if scores.tokens is None else scores.tokens.float().cpu()
    if tokens is not None:
        _check_token_scores(reward, tokens, sum(_token_counts(trees)))
    parts = {name: part.float().cpu() for name, part in scores.parts.items()}
    return Scores(scores.total.float().cpu(), parts, tokens)


def score_share(reward: Reward, trees: Sequence[Tree], processes: Processes) -> Scores | None:
    """Scores of the trees of this process, every ``processes.world``-th; None if it has none."""
    share = trees[processes.rank :: processes.world]
    return score_trees(reward, share) if share else None


def join_scores(shares: Sequence[Scores | None], trees: Sequence[Tree]) -> Scores:
    """Scores of all responses of ``trees``, in order.

    Args:
        shares: of `score_share`, by rank.
        trees: of all processes.
    """
    present = [share for share in shares if share is not None]
    sizes = [len(tree.responses) for tree in trees]
    parts = {}
    for name in present[0].parts:
        parts[name] = _join([share.parts[name] for share in present], sizes)
    tokens = [share.tokens for share in present if share.tokens is not None]
    return Scores(
        _join([share.total for share in present], sizes),
        parts,
        _join(tokens, _token_counts(trees)) if tokens else None,
    )


def _join(shares: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """One tensor of the pieces that are dealt to ``shares`` in turn, of these sizes."""
    pieces: list[Tensor] = [torch.zeros(0)] * len(sizes)
    for rank, share in enumerate(shares):
        own_sizes = list(sizes[rank :: len(shares)])
        pieces[rank :: len(shares)] = torch.split(share, own_sizes)
    return torch.cat(pieces)


def _token_counts(trees: Sequence[Tree]) -> list[int]:
    """Tokens of the responses of each tree."""
    return [sum(map(len, tree.responses)) for tree in trees]


def _check_token_scores(reward: Reward, token_scores: Tensor, num_tokens: int) -> None:
    finite = token_scores.isfinite()
    if token_scores.shape != (num_tokens,) or not finite.all():
        raise ModelError(
            f"{reward} gave {list(token_scores.shape)} scores by token, {int(finite.sum())} of them finite, for "
            f"responses of {num_tokens} tokens; each token has one"
        )
