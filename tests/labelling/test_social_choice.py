"""Rankings of several people: each rule keeps the properties that it promises, and gives up those that it names."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_align.errors import ConfigError
from lit_align.labelling.aggregation import labelled_groups
from lit_align.labelling.social_choice import (
    RANKINGS,
    Contests,
    borda,
    bradley_terry,
    copeland,
    kemeny,
)
from lit_align.labelling.votes import CampaignVotes, Task, Vote
from lit_align.types import Group

PROFILES = st.integers(2, 5).flatmap(
    lambda count: st.lists(st.permutations(range(count)), min_size=1, max_size=7)
)
"""Votes, each a ranking of the same responses, the best first."""


def wins_of(profile):
    """Share of the voters who rank one response above another."""
    count = len(profile[0])
    wins = [[0.0] * count for _ in range(count)]
    for vote in profile:
        for place, better in enumerate(vote):
            for worse in vote[place + 1 :]:
                wins[better][worse] += 1 / len(profile)
    return wins


def without_ties(profile):
    count = len(profile[0])
    zeros = [[0.0] * count for _ in range(count)]
    return Contests(wins_of(profile), zeros, [[len(profile)] * count for _ in range(count)])


def kendall(order, vote):
    """Pairs on which an order and a vote disagree."""
    return sum(
        vote.index(better) > vote.index(worse)
        for place, better in enumerate(order)
        for worse in order[place + 1 :]
    )


@given(PROFILES)
def test_borda_counts_the_responses_below(profile):
    """As Borda wrote it: a vote gives a response a point for each that it is ranked above."""
    count = len(profile[0])
    points = [sum(count - 1 - vote.index(i) for vote in profile) for i in range(count)]
    expected = [1 + sum(other > own for other in points) for own in points]
    assert list(borda(wins_of(profile))) == expected


@given(PROFILES)
def test_what_beats_each_other_comes_first(profile):
    wins = wins_of(profile)
    for i, row in enumerate(wins):
        if all(row[j] > 0.5 + 1e-9 for j in range(len(row)) if j != i):
            assert copeland(wins)[i] == kemeny(wins)[i] == 1


@given(PROFILES)
def test_kemeny_disagrees_with_fewest(profile):
    ranking = kemeny(wins_of(profile))
    order = sorted(range(len(ranking)), key=ranking.__getitem__)
    fewest = min(
        sum(kendall(other, vote) for vote in profile) for other in permutations(range(len(order)))
    )
    assert sum(kendall(order, vote) for vote in profile) == fewest


@given(PROFILES, st.sampled_from(sorted(RANKINGS)))
def test_all_agree_if_the_voters_do(profile, name):
    ranking = RANKINGS[name](without_ties(profile[:1] * 3))
    assert sorted(range(len(ranking)), key=ranking.__getitem__) == list(profile[0])


def test_borda_gives_up_the_winner_of_all_comparisons_and_copies_matter():
    winner_second = wins_of([[0, 1, 2]] * 3 + [[1, 2, 0]] * 2)
    assert borda(winner_second) == (2, 1, 3)
    assert copeland(winner_second) == kemeny(winner_second) == (1, 2, 3)
    without_the_last = wins_of([[0, 1]] * 3 + [[1, 0]] * 2)
    assert borda(without_the_last) == (1, 2)


@pytest.mark.parametrize(
    ("rule", "ranking"),
    [
        ("borda", (2, 1, 3)),
        ("copeland", (1, 2, 3)),
        ("kemeny", (1, 2, 3)),
        ("bradley_terry", (2, 1, 3)),
    ],
)
def test_votes_of_five_people_become_one_ranking_by_each_rule(rule, ranking):
    """The same five, as they ranked on the page."""
    answers = [{"places": [1, 2, 3]}] * 3 + [{"places": [3, 1, 2]}] * 2
    history = [Vote(f"w{k}", 1, 1, "vote", answer, (0, 1, 2)) for k, answer in enumerate(answers)]
    group = Group("?", ["a", "b", "c"])
    votes = CampaignVotes({1: group}, {1: Task("rank", 1, (0, 1, 2), None)}, history)
    (labelled,) = (group for _, group in labelled_groups(votes, "share", rule))
    assert labelled.ranking == ranking


def test_copeland_gives_up_single_places():
    circle = wins_of([[0, 1, 2], [1, 2, 0], [2, 0, 1]])
    assert copeland(circle) == (1, 1, 1)
    assert kemeny(circle) == (1, 2, 3)


def test_kemeny_gives_up_long_lists():
    with pytest.raises(
        ConfigError, match=r"there may be 12, and a group has 13; take borda or copeland"
    ):
        kemeny([[0.5] * 13] * 13)
    order = list(range(12))
    assert kemeny(wins_of([order] * 2)) == tuple(range(1, 13))


@given(PROFILES)
def test_bradley_terry_has_bordas_order_where_all_pairs_have_as_many_votes(profile):
    """The sum of a response's wins is all that the likelihood knows of it."""
    assert bradley_terry(without_ties(profile)) == borda(wins_of(profile))


def test_bradley_terry_counts_votes_and_ranks_what_was_not_all_compared():
    """a beat b in 3 of 4, b beat c in 2 of 4 with a tie, and a was not compared with c."""
    wins = [[0.0, 0.75, 0.5], [0.25, 0.0, 0.625], [0.5, 0.375, 0.0]]
    ties = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.25], [0.0, 0.25, 0.0]]
    votes = [[0, 4, 0], [4, 0, 4], [0, 4, 0]]
    assert bradley_terry(Contests(wins, ties, votes)) == (1, 2, 3)
    assert RANKINGS["borda"](Contests(wins, ties, votes)) == ()
    apart = [[0, 4, 0], [4, 0, 0], [0, 0, 0]]
    assert bradley_terry(Contests(wins, ties, apart)) == ()
    # c beats b more clearly than a does
    wins, ties = [[0.0, 0.6, 0.5], [0.4, 0.0, 0.1], [0.5, 0.9, 0.0]], [[0.0] * 3] * 3
    assert bradley_terry(Contests(wins, ties, [[9] * 3] * 3)) == (2, 3, 1)
