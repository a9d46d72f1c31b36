"""Batches to try an objective on, one kind for each family."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_align.objectives import (
    Objective,
    PairwiseObjective,
    PolicyObjective,
    PolicyTokens,
    RankedObjective,
    RatedObjective,
    SupervisedObjective,
    UnpairedObjective,
)
from lit_align.types import Logps, PerTokenLogps

LONGEST = 6
Sides = tuple[Logps, ...]
Labels = tuple[Tensor, ...]


class Family(NamedTuple):
    """How the objectives of a family are called, and which way they must push.

    Args:
        sides: what the responses of an item are called.
        labels: of so many items.
        losses: of each item, from its sides and labels.
        better: sign of each side, and of each item of it: 1 where descending must raise it, -1 where it must lower it.
    """

    sides: tuple[str, ...]
    labels: Callable[[int], Labels]
    losses: Callable[[Sides, Labels], Tensor]
    better: Callable[[int], list[Tensor]]


def family(objective: Objective) -> Family:
    """The family of ``objective``."""
    match objective:
        case PairwiseObjective():
            return _pairwise(objective)
        case UnpairedObjective():
            return _unpaired(objective)
        case RankedObjective():
            return _ranked(objective)
        case RatedObjective():
            return _rated(objective)
        case PolicyObjective():
            return _policy(objective)
        case SupervisedObjective():
            return _supervised(objective)
        case _:
            raise TypeError(
                f"{type(objective).__name__} is of no family: derive it from PairwiseObjective or the like"
            )


def _pairwise(objective: PairwiseObjective) -> Family:
    def losses(sides: Sides, labels: Labels) -> Tensor:
        return objective(
            sides[0], sides[1], **({"target": sides[2]} if objective.needs_target else {})
        )

    names = ("chosen", "rejected", *(("target",) if objective.needs_target else ()))
    signs = (1.0, -1.0, 1.0)[: len(names)]
    return Family(names, lambda n: (), losses, lambda n: [torch.full((n,), sign) for sign in signs])


def _unpaired(objective: UnpairedObjective) -> Family:
    def up(n: int) -> Tensor:
        return torch.arange(n) % 3 != 1

    def losses(sides: Sides, labels: Labels) -> Tensor:
        return objective(sides[0], labels[0], sides[0].policy.new_zeros(()))

    return Family(
        ("judged",), lambda n: (up(n),), losses, lambda n: [torch.where(up(n), 1.0, -1.0)]
    )


def _ranked(objective: RankedObjective) -> Family:
    def losses(sides: Sides, labels: Labels) -> Tensor:
        n = len(sides[0].policy)
        policy, reference, length = (
            torch.cat(column) for column in zip(*(side[:3] for side in sides), strict=True)
        )
        order = torch.arange(len(sides) * n).view(len(sides), n).T
        return objective(
            Logps(policy, reference, length), order, torch.arange(len(sides)).expand(n, -1)
        )

    signs = (1.0, 0.0, -1.0)
    return Family(
        ("first", "second", "third"),
        lambda n: (),
        losses,
        lambda n: [torch.full((n,), s) for s in signs],
    )


def _rated(objective: RatedObjective) -> Family:
    """Ratings above and below what the trials score, and for the last attribute one that is missing."""

    def labels(n: int) -> Labels:
        rated = (
            torch.where(torch.arange(n) % 3 != 1, 0.0, -40.0)
            .double()[:, None]
            .repeat(1, len(objective.attributes))
        )
        if rated.shape[1] > 1:
            rated[::2, -1] = float("nan")
        return (rated,)

    def losses(sides: Sides, labels: Labels) -> Tensor:
        scores = sides[0].policy[:, None].expand(-1, len(objective.attributes))
        return objective(scores, labels[0].to(scores))

    def better(n: int) -> list[Tensor]:
        return [labels(n)[0][:, 0].sign() * 2 + 1]

    return Family(("rated",), labels, losses, better)


def _policy(objective: PolicyObjective) -> Family:
    """Responses of one token, sampled by what the trials call the reference; a third did worse than expected."""

    def advantages(n: int) -> Tensor:
        return torch.where(torch.arange(n) % 3 != 1, 1.0, -0.5)

    def losses(sides: Sides, labels: Labels) -> Tensor:
        policy, reference, *_ = sides[0]
        tokens = PolicyTokens(policy, reference, reference, torch.arange(len(policy)))
        return objective(tokens, labels[0].to(policy))

    return Family(
        ("sampled",), lambda n: (advantages(n),), losses, lambda n: [advantages(n).sign()]
    )


def _supervised(objective: SupervisedObjective) -> Family:
    return Family(
        ("imitated",),
        lambda n: (),
        lambda sides, labels: objective(sides[0].policy),
        lambda n: [torch.ones(n)],
    )


def side(tokens: Tensor, reference: Tensor, length: Tensor) -> Logps:
    """Responses from the log-probabilities of their tokens, ``[n, longest]``; what is behind the end does not count."""
    scored = torch.arange(tokens.shape[1]) < length[:, None]
    tokens, reference = tokens * scored, reference * scored
    collision = (-0.5 - 0.1 * torch.arange(tokens.shape[1])).to(tokens) * scored
    return Logps(
        tokens.sum(1), reference.sum(1), length, PerTokenLogps(tokens, reference, collision)
    )


def drawn(n: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of tokens under policy and reference, in quarters of a nat, and ragged lengths."""
    draw = torch.Generator().manual_seed(seed)
    tokens, reference = (
        -torch.randint(1, 17, (n, LONGEST), generator=draw).to(dtype) / 4 for _ in range(2)
    )
    return tokens.requires_grad_(), reference, torch.randint(2, LONGEST + 1, (n,), generator=draw)
