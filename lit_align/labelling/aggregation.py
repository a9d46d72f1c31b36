"""Votes to labels: by majority, by share of votes, or by Dawid and Skene's model of the annotators' errors.

*A tie* is half a vote for each of two responses. For Dawid and Skene it is a label of its own, and half of its
probability goes to each. By majority, if ties are the commonest answer, nothing is preferred.

A comparison whose probability comes out as one half is left out, and so is a group without any label. A ranking is read
as the comparisons that it implies. Dawid and Skene, 1979, https://doi.org/10.2307/2346806; there is no prior on the
annotators, and one who is usually wrong counts the other way round.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import multimode
from typing import Any, NamedTuple

import numpy as np

from lit_align.annotators import ANNOTATOR, is_same
from lit_align.errors import ConfigError
from lit_align.labelling.social_choice import EPSILON, RANKINGS, Contests, Ranker
from lit_align.labelling.votes import (
    TASK_KINDS,
    CampaignVotes,
    ContentKey,
    Vote,
    answer_values,
    merge_equal_groups,
    read_votes,
)
from lit_align.types import Group, Pair

Item = tuple[int, int, int]
"""What is labelled: the number of a group and the indices of two of its responses, or of one of them twice."""
Distribution = dict[int, float]
"""Probability of each value; empty if undecided."""
Distributions = dict[Item, Distribution]


class Label(NamedTuple):
    """One label of one annotator.

    Args:
        item: what is labelled.
        annotator: who labelled it.
        value: 1, -1 or 0 for the first, the second or neither of two; 1 or 0 for good or bad; or the rating.
        vote: the vote that holds it.
    """

    item: Item
    annotator: str
    value: int
    vote: Any = None


Aggregator = Callable[[Sequence[Label]], Distributions]


class ItemVotes(NamedTuple):
    """The votes on one item, aggregated.

    Args:
        first: index of the first response.
        second: index of the second one, or the same again.
        distribution: probability of each value.
        votes: the votes themselves.
    """

    first: int
    second: int
    distribution: Distribution
    votes: list[Vote]


class ContentVotes(NamedTuple):
    """Aggregated votes on one prompt with its responses.

    Args:
        groups: labelled groups, one for each kind of task that has a label.
        record: how many annotators, votes, ties, abstentions and dropped annotators they rest on.
    """

    groups: list[Group]
    record: dict[str, int]


def collect_labels(data: CampaignVotes, gold: bool = False) -> dict[str, list[Label]]:
    """Labels of the votes that count, by kind of task; of gold tasks, or of the others."""
    labels: dict[str, list[Label]] = {kind: [] for kind in TASK_KINDS}
    for vote in data.votes:
        task = data.tasks[vote.task]
        if bool(task.gold) != gold:
            continue
        values = answer_values(task.kind, vote.answer, vote.shown)
        for (i, j), value in values.items():
            label = Label((task.group, i, j), vote.annotator, value, vote)
            labels[task.kind].append(label)
    return labels


def group_by_item(labels: Sequence[Label]) -> dict[Item, list[Label]]:
    """The labels of each item."""
    by_item = defaultdict(list)
    for label in labels:
        by_item[label.item].append(label)
    return by_item


def majority_vote(labels: Sequence[Label]) -> Distributions:
    """The commonest value of each item, with probability 1; undecided where two are equally common.

    Example:
        >>> majority_vote([Label((1, 0, 1), name, value) for name, value in (("a", 1), ("b", 1), ("c", -1))])
        {(1, 0, 1): {1: 1.0}}
    """
    distributions: Distributions = {}
    for item, item_labels in group_by_item(labels).items():
        modes = multimode(label.value for label in item_labels)
        if len(modes) == 1:
            distributions[item] = {modes[0]: 1.0}
        else:
            distributions[item] = {}
    return distributions


def vote_shares(labels: Sequence[Label]) -> Distributions:
    """The share of the annotators for each value.

    Example:
        >>> vote_shares([Label((1, 0, 1), name, value) for name, value in (("a", 1), ("b", 1), ("c", -1), ("d", 0))])
        {(1, 0, 1): {1: 0.5, -1: 0.25, 0: 0.25}}
    """
    distributions = {}
    for item, item_labels in group_by_item(labels).items():
        counts = Counter(label.value for label in item_labels)
        total = counts.total()
        distributions[item] = {value: count / total for value, count in counts.items()}
    return distributions


def dawid_skene(labels: Sequence[Label]) -> Distributions:
    """The posterior of the true value, given how often each annotator confuses one value with another."""
    try:
        from crowdkit.aggregation import DawidSkene
        from pandas import DataFrame
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; dawid_skene needs pip install 'lit-align[label]'"
        ) from error
    if not labels:
        return {}
    table = DataFrame([label[:3] for label in labels], columns=["task", "worker", "label"])
    posteriors = DawidSkene(n_iter=100, tol=-math.inf).fit_predict_proba(table)
    distributions: Distributions = {}
    for item, row in posteriors.iterrows():
        distributions[item] = {int(value): float(probability) for value, probability in row.items()}
    return distributions


AGGREGATORS: dict[str, Aggregator] = {
    "majority": majority_vote,
    "share": vote_shares,
    "dawid_skene": dawid_skene,
}
"""Ways to make one label of several votes, by the name that settings and exports use."""


def gold_accuracy(data: CampaignVotes) -> dict[str, tuple[int, int]]:
    """For each annotator, how many labels on gold tasks were right, and how many there were.

    A tie is right only where the known answer is one; a rating is right if it is at most one off.
    """
    num_right, num_seen = Counter[str](), Counter[str]()
    for kind, labels in collect_labels(data, gold=True).items():
        max_error = 1 if kind == "rate" else 0
        for label in labels:
            num_seen[label.annotator] += 1
            if _gold_error(data, label) <= max_error:
                num_right[label.annotator] += 1
    return {name: (num_right[name], count) for name, count in num_seen.items()}


def _gold_error(data: CampaignVotes, label: Label) -> int:
    """How far the value is from the known one."""
    _, i, j = label.item
    task = data.tasks[label.vote.task]
    assert task.gold is not None
    correct_values = answer_values(task.kind, task.gold, task.members)
    return abs(label.value - correct_values[i, j])


def drop_unreliable(data: CampaignVotes, min_gold_accuracy: float) -> CampaignVotes:
    """The votes without annotators who were right on less than that share of the gold tasks they saw."""
    unreliable = set()
    for name, (num_right, num_seen) in gold_accuracy(data).items():
        if num_right < min_gold_accuracy * num_seen:
            unreliable.add(name)
    history = [vote for vote in data.history if vote.annotator not in unreliable]
    return data._replace(history=history)


def labelled_groups(
    data: CampaignVotes, method: str = "share", ranking: str = "borda"
) -> Iterator[tuple[int, Group]]:
    """Every group that has votes, labelled as training reads it, with its number.

    Comparisons and rankings become pairs, with the probability that they are right and the mean strength as margin,
    and, where enough were compared, places by one of `RANKINGS`. Ratings become their mean, or the commonest one, with
    the share of annotators who raised each flag; good and bad become the more probable label. A group with several
    kinds of task comes once for each.

    Args:
        data: the votes.
        method: one of `AGGREGATORS`.
        ranking: one of `RANKINGS`.
    """
    aggregate, rank = AGGREGATORS[method], RANKINGS[ranking]
    for kind, labels in collect_labels(data).items():
        items_by_group = _aggregate_items(labels, aggregate)
        for number, items in sorted(items_by_group.items()):
            group = data.groups[number]
            if kind == "rate":
                group = _add_ratings(group, items)
            elif kind == "thumbs":
                group = _add_binary_labels(group, items)
            else:
                group = _add_comparisons(group, items, rank)
            if group.items:
                extra = {**group.extra, "votes": _count_ballots(items)}
                extra.pop(ANNOTATOR, None)  # whoever labelled the task's row earlier
                yield number, group._replace(extra=extra)


def _aggregate_items(labels: Sequence[Label], aggregate: Aggregator) -> dict[int, list[ItemVotes]]:
    """The aggregated votes on each item, by number of the group."""
    distributions = aggregate(labels)
    items_by_group: dict[int, list[ItemVotes]] = defaultdict(list)
    for item, item_labels in group_by_item(labels).items():
        number, first, second = item
        votes = [label.vote for label in item_labels]
        item_votes = ItemVotes(first, second, distributions[item], votes)
        items_by_group[number].append(item_votes)
    return items_by_group


def _count_ballots(items: list[ItemVotes]) -> int:
    """How many votes there are; a vote may be about several items."""
    ballots = set[tuple[str, int]]()
    for item in items:
        ballots.update((vote.annotator, vote.task) for vote in item.votes)
    return len(ballots)


def _add_comparisons(group: Group, items: list[ItemVotes], rank: Ranker) -> Group:
    num_responses = len(group.responses)
    pairs = []
    wins = [[0.5] * num_responses for _ in range(num_responses)]
    ties = [[0.0] * num_responses for _ in range(num_responses)]
    numbers = [[0.0] * num_responses for _ in range(num_responses)]
    for first, second, distribution, votes in items:
        first_wins = 0.5
        if distribution:  # a tie is half a win for each
            first_wins = distribution.get(1, 0.0) + distribution.get(0, 0.0) / 2
        wins[first][second], wins[second][first] = first_wins, 1 - first_wins
        ties[first][second] = ties[second][first] = distribution.get(0, 0.0)
        numbers[first][second] = numbers[second][first] = len(votes)
        better, worse = (first, second) if first_wins > 0.5 else (second, first)
        probability = wins[better][worse]
        if probability > 0.5 + EPSILON:
            margin = _mean_strength(votes, better)
            pairs.append(Pair(better, worse, probability, margin))
    ranking = rank(Contests(wins, ties, numbers)) if pairs else ()
    return group._replace(pairs=tuple(pairs), ranking=ranking)


def _mean_strength(votes: list[Vote], better: int) -> float:
    """Mean strength of the preference for ``better``, at least 0; 0 if no vote says a strength, as in rankings."""
    strengths = []
    for vote in votes:
        if vote.answer.get("graded", True):
            sign = 1 if vote.shown[-1] == better else -1
            strength = vote.answer.get("preference", 0)
            strengths.append(strength * sign)
    return max(0.0, float(np.mean(strengths or [0.0])))


def _add_ratings(group: Group, items: list[ItemVotes]) -> Group:
    ratings: list[dict[str, float]] = [{} for _ in group.responses]
    for item in items:
        if item.distribution:
            response_ratings = _flag_shares(item.votes)
            response_ratings["rating"] = sum(
                value * probability for value, probability in item.distribution.items()
            )
            ratings[item.first] = response_ratings
    if not any(ratings):
        return group._replace(ratings=())
    return group._replace(ratings=tuple(ratings))


def _flag_shares(votes: list[Vote]) -> dict[str, float]:
    """Share of the votes that raised each flag, of those that could."""
    raised = defaultdict(list)
    for vote in votes:
        flags: dict[str, bool] = vote.answer["flags"]
        for flag, is_raised in flags.items():
            raised[flag].append(is_raised)
    shares = {}
    for flag, values in raised.items():
        shares[flag] = float(np.mean(values))
    return shares


def _add_binary_labels(group: Group, items: list[ItemVotes]) -> Group:
    responses, desirable = [], []
    for item in sorted(items):
        probability = item.distribution.get(1, 0.0) if item.distribution else 0.5
        if abs(probability - 0.5) > EPSILON:
            responses.append(group.responses[item.first])
            desirable.append(probability > 0.5)
    return group._replace(responses=responses, desirable=tuple(desirable))


def aggregate_by_content(
    store: str | Path,
    method: str,
    min_gold_accuracy: float,
    ranking: str = "borda",
    annotator: str | None = None,
) -> dict[ContentKey, ContentVotes]:
    """Labels of every group of the store by its content, with what they rest on.

    Args:
        store: file of ``lit-align label``.
        method: one of `AGGREGATORS`.
        min_gold_accuracy: annotators below it are dropped.
        ranking: one of `RANKINGS`.
        annotator: whose votes alone count; None counts those of all.

    Raises:
        DataError: if the file is no store.
    """
    data, keys = merge_equal_groups(read_votes(store))
    if annotator is not None:
        history = [vote for vote in data.history if is_same(vote.annotator, annotator)]
        data = data._replace(history=history)
    reliable = drop_unreliable(data, min_gold_accuracy)
    groups_by_key = defaultdict(list)
    for number, group in labelled_groups(reliable, method, ranking):
        groups_by_key[keys[number]].append(group)

    answers_by_group: dict[int, list[Vote]] = defaultdict(list)
    for vote in data.latest:
        task = data.tasks[vote.task]
        if not task.gold:
            answers_by_group[task.group].append(vote)
    num_ties = _count_ties(reliable)
    annotators = {vote.annotator for vote in reliable.history}

    by_content = {}
    for number, answers in answers_by_group.items():
        key = keys[number]
        record = _count_votes(answers, annotators, num_ties[number])
        by_content[key] = ContentVotes(groups_by_key[key], record)
    return by_content


def _count_ties(data: CampaignVotes) -> Counter[int]:
    """Ties between two responses, by number of the group."""
    labels = collect_labels(data)
    num_ties = Counter[int]()
    for label in labels["compare"] + labels["rank"]:
        number, _, _ = label.item
        if label.value == 0:
            num_ties[number] += 1
    return num_ties


def _count_votes(answers: list[Vote], reliable: set[str], num_ties: int) -> dict[str, int]:
    """The record of a group: what its labels rest on, and what was left out."""
    annotators, voters = set(), []
    num_abstentions = 0
    for vote in answers:
        if vote.verdict == "removed":
            continue
        annotators.add(vote.annotator)
        if vote.verdict != "vote":
            num_abstentions += 1
        elif vote.annotator in reliable:
            voters.append(vote.annotator)
    return {
        "annotators": len(set(voters)),
        "votes": len(voters),
        "ties": num_ties,
        "abstentions": num_abstentions,
        "dropped": len(annotators - reliable),
    }
