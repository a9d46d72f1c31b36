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
    StepwiseObjective,
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
        policy = self.policy * is_scored
        reference = self.reference * is_scored
        collision = (-0.5 - 0.1 * places).to(policy)
        tokens = PerTokenLogps(policy, reference, collision * is_scored)
        return Logps(policy.sum(1), reference.sum(1), self.length, tokens)


def draw_tokens(num_items: int, seed: int, dtype: torch.dtype = torch.float64) -> TokenDraw:
    """Log-probabilities in quarters of a nat, which every dtype holds exactly, and lengths from 2 tokens up."""
    generator = torch.Generator().manual_seed(seed)

    def draw_logps() -> Tensor:
        quarters = torch.randint(1, 17, (num_items, MAX_TOKENS), generator=generator)
        return -quarters.to(dtype) / 4

    policy = draw_logps().requires_grad_()
    reference = draw_logps()
    length = torch.randint(2, MAX_TOKENS + 1, (num_items,), generator=generator)
    return TokenDraw(policy, reference, length)


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
        case StepwiseObjective():
            return _stepwise(objective)
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


def _constant_directions(*signs: float) -> Callable[[int], list[Tensor]]:
    """The same sign for a response in every item."""

    def directions(num_items: int) -> list[Tensor]:
        return [torch.full((num_items,), sign) for sign in signs]

    return directions


def _is_positive(num_items: int) -> Tensor:
    """Which items have a positive label; two of three, ``[n]``."""
    return torch.arange(num_items) % 3 != 1


def _pairwise(objective: PairwiseObjective) -> Harness:
    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        chosen, rejected, *targets = responses
        if targets:
            return objective(chosen, rejected, target=targets[0])  # type: ignore[call-arg]
        return objective(chosen, rejected)

    names, signs = ["chosen", "rejected"], [1.0, -1.0]
    if objective.needs_target:
        names.append("target")
        signs.append(1.0)
    return Harness(
        names=tuple(names),
        make_labels=_no_labels,
        compute_losses=compute_losses,
        directions=_constant_directions(*signs),
    )


def _unpaired(objective: UnpairedObjective) -> Harness:
    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        (logps,), (desirable,) = responses, labels
        baseline = logps.policy.new_zeros(())
        return objective(logps, desirable, baseline)

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
            policy=torch.cat([logps.policy for logps in responses]),
            reference=torch.cat([logps.reference for logps in responses]),
            length=torch.cat([logps.length for logps in responses]),
        )
        indices = torch.arange(len(names) * num_items)
        order = indices.view(len(names), num_items).T
        place = torch.arange(len(names)).expand(num_items, -1)
        return objective(all_responses, order, place)

    return Harness(
        names=names,
        make_labels=_no_labels,
        compute_losses=compute_losses,
        directions=_constant_directions(1.0, 0.0, -1.0),
    )


def _rated(objective: RatedObjective) -> Harness:
    """Ratings above and below every score, 0 and -40; every other rating of the last attribute is missing."""
    num_attributes = len(objective.attributes)

    def make_ratings(num_items: int) -> Tensor:
        rating = torch.where(_is_positive(num_items), 0.0, -40.0).double()
        ratings = rating[:, None].repeat(1, num_attributes)
        if num_attributes > 1:
            ratings[::2, -1] = float("nan")
        return ratings

    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        (logps,), (ratings,) = responses, labels
        scores = logps.policy[:, None].expand(-1, num_attributes)
        return objective(scores, ratings.to(scores))

    return Harness(
        names=("rated",),
        make_labels=lambda n: (make_ratings(n),),
        compute_losses=compute_losses,
        directions=lambda n: [make_ratings(n)[:, 0].sign() * 2 + 1],
    )


def _stepwise(objective: StepwiseObjective) -> Harness:
    def make_labels(num_items: int) -> Tensor:
        return _is_positive(num_items).double()

    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        (logps,), (is_right,) = responses, labels
        return objective(logps.policy, is_right.to(logps.policy))

    return Harness(
        names=("labelled",),
        make_labels=lambda n: (make_labels(n),),
        compute_losses=compute_losses,
        directions=lambda n: [make_labels(n) * 2 - 1],
    )


def _policy(objective: PolicyObjective) -> Harness:
    """Responses of one token, sampled by what the draws call the reference; a third has a negative advantage."""

    def make_advantages(num_items: int) -> Tensor:
        return torch.where(_is_positive(num_items), 1.0, -0.5)

    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        (logps,), (advantages,) = responses, labels
        owner = torch.arange(len(logps.policy))
        sampler = logps.reference
        entropy = torch.full_like(sampler, 0.5)
        divergence = -logps.policy  # from a teacher that is certain of each token
        tokens = PolicyTokens(
            logps.policy, sampler, sampler, owner, entropy, sampler, divergence=divergence
        )
        return objective(tokens, advantages.to(logps.policy))

    def directions(num_items: int) -> list[Tensor]:
        if objective.divergence_from is not None:  # whatever the advantage
            return [torch.ones(num_items)]
        return [make_advantages(num_items).sign()]

    return Harness(
        names=("sampled",),
        make_labels=lambda n: (make_advantages(n),),
        compute_losses=compute_losses,
        directions=directions,
    )


def _supervised(objective: SupervisedObjective) -> Harness:
    def compute_losses(responses: Responses, labels: Labels) -> Tensor:
        (logps,) = responses
        options = {}
        if objective.needs_entropy:
            options["entropy"] = torch.full_like(logps.policy.detach(), 0.5)
        if objective.needs_divergence:
            options["divergence"] = -logps.policy  # from a teacher that is certain of each token
        return objective(logps.policy, **options)

    return Harness(
        names=("demonstrated",),
        make_labels=_no_labels,
        compute_losses=compute_losses,
        directions=_constant_directions(1.0),
    )
