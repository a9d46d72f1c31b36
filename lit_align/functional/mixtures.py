"""A few shared solutions for many people, each of whom is a mixture of them: expectation maximisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from lit_align.functional.shrinkage import shrunk_minimum

Losses = Callable[[Tensor], Tensor]
"""Minus the log-likelihood of each person's data, ``[people]``, of a solution in double precision."""
TOLERANCE = 1e-6
"""Change of the memberships at which they have settled."""


def shared_minima(
    losses: Losses, starts: Sequence[Tensor], precision: float, max_rounds: int = 50
) -> tuple[Tensor, Tensor]:
    r"""K solutions, and how probable each of them is for each person.

    .. math::
        w_{pk} = \operatorname{softmax}_k\big(\log \pi_k - \ell_p(\delta_k)\big), \qquad
        \delta_k = \arg\min_\delta \sum_p w_{pk}\, \ell_p(\delta) + \frac{\kappa}{2} \lVert \delta \rVert^2, \qquad
        \pi_k = \frac{1}{P} \sum_p w_{pk}

    in turns until the memberships w settle (Dempster, Laird & Rubin, 1977, https://doi.org/10.1111/j.2517-6161.1977.tb01600.x):
    each turn raises the posterior of the solutions under the prior :math:`N(0, I/\kappa)`.

    Args:
        losses: :math:`\ell_p` of all people, in one call.
        starts: solutions to begin with, K of them; those that are equal stay so.
        precision: κ, above 0.
        max_rounds: turns, if they do not settle before.

    Returns:
        Solutions, ``[K, ...]``, and memberships, ``[people, K]``.

    Example:
        Three people at -2, -2 and 4, with a prior so weak that it moves nobody.

        >>> opinions = torch.tensor([-2.0, -2.0, 4.0])
        >>> starts = [torch.tensor([value]).double() for value in (-1.0, 1.0)]
        >>> solutions, memberships = shared_minima(lambda d: 50 * (d - opinions).square(), starts, precision=1e-6)
        >>> solutions.flatten().round(decimals=3).tolist(), memberships.round().tolist()
        ([-2.0, 4.0], [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    """
    solutions = torch.stack([*starts])
    shares = torch.full((len(starts),), 1 / len(starts), dtype=torch.float64)
    memberships = torch.zeros((), dtype=torch.float64)
    for _ in range(max_rounds):
        previous = memberships
        memberships = _memberships(losses, solutions, shares)
        if (memberships - previous).abs().max() < TOLERANCE:
            break
        shares = memberships.mean(0)
        fitted = []
        for weights, solution in zip(memberships.T, solutions, strict=True):
            total = partial(_weighted_sum, losses, weights)
            fitted.append(shrunk_minimum(total, solution, precision))
        solutions = torch.stack(fitted)
    return solutions, memberships


@torch.no_grad()
def _memberships(losses: Losses, solutions: Tensor, shares: Tensor) -> Tensor:
    by_solution = torch.stack([losses(solution) for solution in solutions], 1)
    return torch.softmax(shares.log() - by_solution, 1)


def _weighted_sum(losses: Losses, weights: Tensor, solution: Tensor) -> Tensor:
    """The loss of all people, each by their weight."""
    return weights @ losses(solution)


def spread_out(points: Tensor, count: int) -> list[int]:
    """Indices of points that are far from each other: the longest one, then each farthest from those before.

    Args:
        points: ``[n, ...]``.
        count: how many, at most n.

    Example:
        >>> spread_out(torch.tensor([[0.0], [5.0], [4.0], [-1.0]]), 2)
        [1, 3]
    """
    flat = points.flatten(1)
    chosen = [int(flat.norm(dim=1).argmax())]
    while len(chosen) < count:
        distances = torch.cdist(flat, flat[chosen]).amin(1)
        chosen.append(int(distances.argmax()))
    return chosen
