"""Scores of responses by a reward, checked and on the CPU, which processes may share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lit_align.errors import ModelError, OtherProcessFailed
from lit_align.processes import Processes
from lit_align.rewards import Reward, Scores
from lit_align.rewards.base import checked_scores
from lit_align.types import Tree

SPLIT = (
    "processes that score shares of the prompts cannot join that; give it to all responses, with 0 where it does not "
    "apply, or let can_split return False"
)
"""Why scores of one kind are needed where processes share them, and the remedy."""


def shared_scores(reward: Reward, trees: Sequence[Tree], processes: Processes) -> Scores:
    """Scores of all responses of ``trees``, in order, of which each process scores some where the reward permits it.

    Raises:
        ModelError: if the reward does not give each response, or each token, one finite number, or gives other parts
            to some of the trees; on one process, and OtherProcessFailed on the others.
    """

    def score(places: list[int]) -> list[Scores]:
        share = [trees[place] for place in places]
        return split_scores(score_trees(reward, share), share)

    if reward.can_split():
        split = processes.share(len(trees), score)
        fault = kinds_fault(reward, split, trees, SPLIT)
        if fault:  # all know it, the first tells it
            raise (ModelError if processes.is_first else OtherProcessFailed)(fault)
        return join_scores(split)
    return processes.from_first(lambda: score_trees(reward, trees))


def score_trees(reward: Reward, trees: Sequence[Tree]) -> Scores:
    """Scores of all responses of ``trees``, in order."""
    scores = checked_scores(
        reward, [tree.group for tree in trees], may_abstain=True, reads_tokens=True
    )
    tokens = None if scores.tokens is None else scores.tokens.float().cpu()
    if tokens is not None:
        _check_token_scores(reward, tokens, sum(_token_counts(trees)))
    parts = {name: part.float().cpu() for name, part in scores.parts.items()}
    scored = None if scores.scored is None else scores.scored.cpu()
    return Scores(scores.total.float().cpu(), parts, tokens, scored)


def split_scores(scores: Scores, trees: Sequence[Tree]) -> list[Scores]:
    """The scores of each tree."""
    sizes = [len(tree.responses) for tree in trees]
    split = []
    for total in torch.split(scores.total, sizes):
        split.append(Scores(total, {}))
    for name, values in scores.parts.items():
        for index, part in enumerate(torch.split(values, sizes)):
            split[index] = split[index]._replace(parts={**split[index].parts, name: part})
    if scores.tokens is not None:
        for index, tokens in enumerate(torch.split(scores.tokens, _token_counts(trees))):
            split[index] = split[index]._replace(tokens=tokens)
    if scores.scored is not None:
        for index, scored in enumerate(torch.split(scores.scored, sizes)):
            split[index] = split[index]._replace(scored=scored)
    return split


def kinds_fault(
    reward: Reward, split: Sequence[Scores], trees: Sequence[Tree], consequence: str
) -> str:
    """What is wrong with scores that are to be joined, if some trees have a part or token scores that others lack.

    Args:
        reward: that gave them, in several calls.
        split: scores of each tree.
        trees: with the sources of their prompts.
        consequence: why that matters to the caller, and the remedy.
    """
    kinds = [_kinds(scores) for scores in split]
    every, common = set().union(*kinds), set.intersection(*kinds)
    if every == common:
        return ""
    kind = min(every - common)
    has = next(place for place, own in enumerate(kinds) if kind in own)
    lacks = next(place for place, own in enumerate(kinds) if kind not in own)
    return (
        f"{reward} gave {kind} to the responses to {trees[has].group.source}, and none to those to "
        f"{trees[lacks].group.source}: {consequence}"
    )


def join_scores(split: Sequence[Scores]) -> Scores:
    """The scores of several trees, in order; all have the same parts, see `kinds_fault`."""
    parts = {}
    for name in split[0].parts:
        parts[name] = _join(scores.parts[name] for scores in split)
    tokens = [scores.tokens for scores in split if scores.tokens is not None]
    scored = None
    if any(scores.scored is not None for scores in split):  # one that says nothing has scored all
        scored = _join(_is_scored(scores) for scores in split)
    total = _join(scores.total for scores in split)
    return Scores(total, parts, _join(tokens) if tokens else None, scored)


def _is_scored(scores: Scores) -> Tensor:
    """Which responses have a score, ``[responses]``."""
    if scores.scored is not None:
        return scores.scored
    return torch.ones(len(scores.total), dtype=torch.bool)


def _kinds(scores: Scores) -> set[str]:
    """What a reward gave beside totals, in words."""
    kinds = {f"a part {name!r}" for name in scores.parts}
    return kinds if scores.tokens is None else kinds | {"scores by token"}


def _join(pieces: Iterable[Tensor]) -> Tensor:
    return torch.cat([*pieces])


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
