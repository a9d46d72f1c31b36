"""Several people's comparisons of a group's responses as one ranking: Borda, Copeland, Kemeny, Bradley and Terry.

No rule keeps every property that one would want (Arrow, 1950, https://doi.org/10.1086/256963). What each gives up:

=============  =========================================================================================
borda          A response that beats every other may come second: how far others are ahead counts as well.
               A copy of a bad response lifts what beats it.
copeland       Responses often share a place: it counts whom one beats, and not how clearly.
kemeny         Only few responses can be ranked: there is no fast way to find the best order. Where several are
               equally good, the first in the order of the responses is taken.
bradley_terry  A response that beats every other may come second: each is supposed to have one strength, from which
               all comparisons follow. Where all pairs have as many votes, the order is Borda's; unlike the others,
               it also ranks responses that were not all compared with each other.
=============  =========================================================================================

Copeland and Kemeny put a response that beats each other one first, where there is one. How often one response beats
another is the share of votes, a tie half a vote for each, or what another aggregation of votes gives; for Bradley and
Terry a tie is an outcome of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from lit_align.errors import ConfigError
from lit_align.functional.davidson import fit_counts

Wins = Sequence[Sequence[float]]
"""Probability that the response of the row beats that of the column; a pair of them adds up to 1."""


class Contests(NamedTuple):
    """What is known of each pair of a group's responses; every field is ``[k, k]``.

    Args:
        wins: probability that the response of the row beats that of the column, a tie counting half.
        ties: probability of a tie.
        votes: how many votes there are on the pair; 0 if it was not compared.
    """

    wins: Wins
    ties: Wins
    votes: Wins


Ranker = Callable[[Contests], tuple[int, ...]]
"""Places of responses, 1 for the best; none if too few of them were compared."""

EPSILON = 1e-9  # smaller differences are rounding
MOST_FOR_KEMENY = 12
"""Responses of which the best order of every set is looked for: 4,096."""


def borda(wins: Wins) -> tuple[int, ...]:
    r"""Places by how many of the others a response is expected to beat (Borda, 1781).

    .. math:: s_i = \sum_{j \ne i} p_{ij} \tag{1}

    Args:
        wins: probability :math:`p_{ij}` that response i beats response j, ``[k, k]``.

    Example:
        Three voters say a > b > c, two say b > c > a: a beats each other, and b is ahead of more on average.

        >>> wins = [[0, 0.6, 0.6], [0.4, 0, 1.0], [0.4, 0.0, 0]]
        >>> borda(wins), copeland(wins), kemeny(wins)
        ((2, 1, 3), (1, 2, 3), (1, 2, 3))
    """
    return places([_sum_of_others(row, i) for i, row in enumerate(wins)])


def copeland(wins: Wins) -> tuple[int, ...]:
    r"""Places by how many of the others a response beats more often than not; a draw counts half (Copeland, 1951).

    .. math:: s_i = \sum_{j \ne i} 1[p_{ij} > 1/2] + \tfrac{1}{2} 1[p_{ij} = 1/2] \tag{2}

    Args:
        wins: as of `borda`.
    """
    scores = []
    for i, row in enumerate(wins):
        outcomes = [_outcome(probability) for probability in row]
        scores.append(_sum_of_others(outcomes, i))
    return places(scores)


def kemeny(wins: Wins) -> tuple[int, ...]:
    r"""Places in the order that agrees with most comparisons (Kemeny, 1959, https://www.jstor.org/stable/20026529).

    .. math:: \max_{\succ} \sum_{i \succ j} p_{ij} \tag{3}

    Args:
        wins: as of `borda`, of at most 12 responses.

    Raises:
        ConfigError: if there are more.
    """
    count = len(wins)
    if count > MOST_FOR_KEMENY:
        raise ConfigError(
            f"kemeny looks for the best order of a group's responses, of which there may be {MOST_FOR_KEMENY}, and a "
            f"group has {count}; take borda or copeland"
        )
    most = _most_agreement(wins)
    left = list(range(count))
    ranking = [0] * count
    for place in range(1, count + 1):
        best = next(i for i in left if _first_agrees(wins, most, left, i))
        ranking[best] = place
        left.remove(best)
    return tuple(ranking)


def bradley_terry(contests: Contests) -> tuple[int, ...]:
    """Places by strength in the model of Bradley and Terry (1952), with Davidson's ties (`fit_strengths`).

    Args:
        contests: of responses that are all connected by comparisons, or there is no ranking.

    Example:
        Four say a > b, four say b > c, and c was never compared with a:

        >>> wins = [[0, 1.0, 0.5], [0.0, 0, 1.0], [0.5, 0.0, 0]]
        >>> votes = [[0, 4, 0], [4, 0, 4], [0, 4, 0]]
        >>> bradley_terry(Contests(wins, [[0.0] * 3] * 3, votes))
        (1, 2, 3)
    """
    count = len(contests.wins)
    if not _all_connected(contests.votes):
        return ()
    outcomes = []
    for i in range(count):
        for j in range(i + 1, count):
            number, tie = contests.votes[i][j], contests.ties[i][j]
            win = contests.wins[i][j] - tie / 2
            outcomes.append([number * win, number * tie, number * (1 - win - tie)])
    strengths = fit_counts(np.array(outcomes), count).log_strength
    return places([round(float(strength), 8) for strength in strengths])


def places(scores: Sequence[float]) -> tuple[int, ...]:
    """Place of each response, 1 for the highest score; equal scores share a place.

    Example:
        >>> places([0.5, 2.0, 0.5])
        (2, 1, 2)
    """
    ranking = []
    for score in scores:
        is_ahead = [other > score + EPSILON for other in scores]
        ranking.append(1 + sum(is_ahead))
    return tuple(ranking)


def _all_connected(votes: Wins) -> bool:
    """Whether comparisons lead from each response to each other one."""
    reached, waiting = {0}, [0]
    while waiting:
        row = votes[waiting.pop()]
        for j, number in enumerate(row):
            if number and j not in reached:
                reached.add(j)
                waiting.append(j)
    return len(reached) == len(votes)


def _if_all_compared(rule: Callable[[Wins], tuple[int, ...]]) -> Ranker:
    """The rule, for groups of which all responses were compared with all."""

    def rank(contests: Contests) -> tuple[int, ...]:
        for i, row in enumerate(contests.votes):
            if not all(number for j, number in enumerate(row) if j != i):
                return ()
        return rule(contests.wins)

    return rank


def _sum_of_others(row: Sequence[float], own: int) -> float:
    return sum(value for place, value in enumerate(row) if place != own)


def _outcome(probability: float) -> float:
    if abs(probability - 0.5) <= EPSILON:
        return 0.5
    return float(probability > 0.5)


def _most_agreement(wins: Wins) -> list[float]:
    """Comparisons that the best order of each set of responses agrees with; bit i of a set's number is response i."""
    count = len(wins)
    most = [0.0] * 2**count
    for number in range(1, 2**count):
        members = [i for i in range(count) if number >> i & 1]
        most[number] = max(_with_first(wins, most, members, i) for i in members)
    return most


def _with_first(wins: Wins, most: Sequence[float], members: Sequence[int], first: int) -> float:
    """Comparisons that the best order of some responses agrees with, if it begins with one of them."""
    rest = sum(1 << i for i in members if i != first)
    return most[rest] + sum(wins[first][i] for i in members if i != first)


def _first_agrees(wins: Wins, most: Sequence[float], members: Sequence[int], first: int) -> bool:
    """Whether a best order of some responses begins with one of them."""
    number = sum(1 << i for i in members)
    return _with_first(wins, most, members, first) > most[number] - EPSILON


Ranking = Literal["borda", "copeland", "kemeny", "bradley_terry"]
"""Their names, as settings are typed."""

RANKINGS: dict[str, Ranker] = {
    "borda": _if_all_compared(borda),
    "copeland": _if_all_compared(copeland),
    "kemeny": _if_all_compared(kemeny),
    "bradley_terry": bradley_terry,
}
"""Ways to make one ranking of a group's comparisons, by the name that settings and exports use."""
