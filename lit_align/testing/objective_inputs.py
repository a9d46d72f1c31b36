"""Inputs to check an objective with: for each family random responses, labels, and the direction of learning."""

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

MAX_TOKENS = 6
Responses = tuple[Logps, ...]
Labels = tuple[Tensor, ...]


class Harness(NamedTuple):
    """How an objective of one family is called, and which way gradient descent must move its responses.

    Args:
        names: names of the responses of an item, one for each `Logps` of the input.
        make_labels: makes labels for so many items.
        compute_losses: loss of each item, from its responses and labels.
        directions: for so many items, and each of their responses: 1 where descent must raise the log-probability, -1
            where it must lower it, 0 where it may do either.
    """

    names: tuple[str, ...]
    make_labels: Callable[[int], Labels]
    compute_losses: Callable[[Responses, Labels], Tensor]
    directions: Callable[[int], list[Tensor]]


class TokenDraw(NamedTuple):
    """Random responses, token by token.

    Args:
        policy: log-probability of each token, ``[n, tokens]``, with gradient.
        reference: the same under the reference model, ``[n, tokens]``.
        length: tokens of each response, ``[n]``; the others are padding.
    """

    policy: Tensor
    reference: Tensor
    length: Tensor

    def to_logps(self) -> Logps:
        """The log-probabilities as an objective reads them; padding is zero."""
        places = torch.arange(self.policy.shape[1])
        is_scored = places < self.length[:, None]
        policy, reference = self.policy * is_scored, self.reference * is_scored
        collision = (-0.5 - 0.1 * places).to(policy) * is_scored
        tokens = PerTokenLogps(policy, reference, collision)
        return Logps(policy.sum(1), reference.sum(1), self.length, tokens)


def draw_tokens(num_items: int, seed: int, dtype: torch.dtype = torch.float64) -> TokenDraw:
    """Log-probabilities in quarters of a nat, which every dtype holds exactly, and lengths from 2 tokens up."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_items, MAX_TOKENS)
    policy = -torch.randint(1, 17, shape, generator=generator).to(dtype) / 4
    reference = -torch.randint(1, 17, shape, generator=generator).to(dtype) / 4
    length = torch.randint(2, MAX_TOKENS + 1, (num_items,), generator=generator)
    return TokenDraw(policy.requires_grad_(), reference, length)


def make_harness(objective: Objective) -> Harness:
    """The harness of the objective's family.

    Raises:
        TypeError: if it derives from none.
    """
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
                f"{type(objective).__name__} belongs to no family; derive it from PairwiseObjective or a sibling"
            )


def _no_labels(num_items: int) -> Labels:
    return ()


def _constant_directions(signs: tuple[float, ...]) -> Callable[[int], list[Tensor]]:
    return lambda num_items: [torch.full((num_items,), sign) for sign in signs]


def _is_positive(num_items: int) -> Tensor:
    """Which items have a positive label; two of three, ``[n]``."""
    return torch.arange(num_items) % 3 != 1


def _pairwise(objective: PairwiseObjective) -> Harness:
    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        if objective.needs_target:
            return objective(responses[0], responses[1], target=responses[2])  # type: ignore[call-arg]
        return objective(responses[0], responses[1])

    if objective.needs_target:
        names, signs = ("chosen", "rejected", "target"), (1.0, -1.0, 1.0)
    else:
        names, signs = ("chosen", "rejected"), (1.0, -1.0)
    return Harness(names, _no_labels, compute_losses, _constant_directions(signs))


def _unpaired(objective: UnpairedObjective) -> Harness:
    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        return objective(responses[0], labels[0], responses[0].policy.new_zeros(()))

    return Harness(
        names=("labelled",),
        make_labels=lambda n: (_is_positive(n),),
        compute_losses=compute_losses,
        directions=lambda n: [torch.where(_is_positive(n), 1.0, -1.0)],
    )


def _ranked(objective: RankedObjective) -> Harness:
    names = ("first", "second", "third")

    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        num_items = len(responses[0].policy)
        all_responses = Logps(
            torch.cat([logps.policy for logps in responses]),
            torch.cat([logps.reference for logps in responses]),
            torch.cat([logps.length for logps in responses]),
        )
        order = torch.arange(len(names) * num_items).view(len(names), num_items).T
        return objective(all_responses, order, torch.arange(len(names)).expand(num_items, -1))

    return Harness(names, _no_labels, compute_losses, _constant_directions((1.0, 0.0, -1.0)))


def _rated(objective: RatedObjective) -> Harness:
    """Ratings above and below every score, 0 and -40; every other rating of the last attribute is missing."""

    def make_ratings(num_items: int) -> Tensor:
        rating = torch.where(_is_positive(num_items), 0.0, -40.0).double()
        ratings = rating[:, None].repeat(1, len(objective.attributes))
        if ratings.shape[1] > 1:
            ratings[::2, -1] = float("nan")
        return ratings

    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        scores = responses[0].policy[:, None].expand(-1, len(objective.attributes))
        return objective(scores, labels[0].to(scores))

    return Harness(
        names=("rated",),
        make_labels=lambda n: (make_ratings(n),),
        compute_losses=compute_losses,
        directions=lambda n: [make_ratings(n)[:, 0].sign() * 2 + 1],
    )


def _policy(objective: PolicyObjective) -> Harness:
    """Responses of one token, sampled by what the draws call the reference; a third has a negative advantage."""

    def make_advantages(num_items: int) -> Tensor:
        return torch.where(_is_positive(num_items), 1.0, -0.5)

    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        policy, old_policy = responses[0].policy, responses[0].reference
        tokens = PolicyTokens(policy, old_policy, old_policy, torch.arange(len(policy)))
        return objective(tokens, labels[0].to(policy))

    return Harness(
        names=("sampled",),
        make_labels=lambda n: (make_advantages(n),),
        compute_losses=compute_losses,
        directions=lambda n: [make_advantages(n).sign()],
    )


def _supervised(objective: SupervisedObjective) -> Harness:
    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        return objective(responses[0].policy)

    return Harness(("demonstrated",), _no_labels, compute_losses, _constant_directions((1.0,)))
