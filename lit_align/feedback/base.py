"""The interface of a feedback source, and functions that turn scores or probabilities into labels."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from lit_align.data.label_conversion import (
    convert_labels,
    ordered_pairs,
    to_pairs,
    to_ratings,
    without_labels,
)
from lit_align.errors import SetAside
from lit_align.functional.statistics import win_score
from lit_align.plugin_wrapping import Wrapping
from lit_align.types import Group, LabelKind, Pair

Record = dict[str, Any]
"""What is logged about one question, as JSON; see `FeedbackResult`."""

IndexPair = tuple[int, int]
"""Two responses of a group, by index."""

TIE = "a tie"
"""Why a group is set aside in which no response is better than another."""


class FeedbackResult(NamedTuple):
    """The labels of one group.

    Args:
        group: with labels of the requested kind, and only the responses that have one; None if it is set aside.
        records: one for each question, to be logged as JSON: who was asked (``source``), a hash of the prompt
            (``prompt``), and what it took, ``cost`` and ``seconds``. A comparison also has ``responses``, the indices
            of the two in the order they were shown, and the ``probability`` that the first of them is better; that is
            None without a verdict, with the reason as ``why``. A tie margin above 0 is recorded as ``doubt``.
        reason: why the group is set aside.
    """

    group: Group | None
    records: tuple[Record, ...] = ()
    reason: str = ""


class Feedback(Wrapping, ABC):
    """A source of labels: a frozen dataclass whose fields are its settings.

    It judges text, and knows nothing of the objective but the kind of label that it needs. A source that asks others
    names them in `wrapped`.

    Class attributes:
        label_kinds: the kinds of label that it can give.
        writes_responses: whether its labels are about responses that it writes itself, so that it has no verdict about
            given ones.
    """

    # without annotations, which the parser would look up in the module of each subclass
    label_kinds = frozenset({"pairs", "desirable", "ranking", "ratings", "demonstrations"})
    writes_responses = False

    def state(self) -> dict[str, Any]:
        """What it has learned since the run began, for the checkpoint: tensors, numbers and text.

        Unless it says otherwise, what the sources of feedback that it asks have learned, by their place in `wrapped`.
        """
        states = {str(place): source.state() for place, source in self._asked_sources()}
        return {place: state for place, state in states.items() if state}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        for place, source in self._asked_sources():
            if str(place) in state:
                source.restore(state[str(place)])

    def _asked_sources(self) -> list[tuple[int, Feedback]]:
        parts = enumerate(self.wrapped())
        return [(place, part) for place, part in parts if isinstance(part, Feedback)]

    @abstractmethod
    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        """Label each group, in order.

        Args:
            groups: prompts with responses; most sources ignore the labels they already have.
            label_kind: the requested kind of label: ``"pairs"``, ``"desirable"``, ``"ranking"``, ``"ratings"`` or
                ``"demonstrations"``.
        """


def label_from_scores(
    group: Group,
    scores: Sequence[float],
    label_kind: str,
    *,
    threshold: float | None = None,
    all_pairs: bool = False,
) -> Group:
    """The group with labels of the kind ``label_kind``, and only the responses that have one.

    Args:
        group: any labels it has are replaced.
        scores: of each response, higher for a better one.
        label_kind: pairs are the best against the worst; desirable is what scores above the threshold, undesirable what
            scores below; a ranking has ties; ratings are the ``score`` itself; the demonstration is the best response,
            the first of equal ones, unless it scores below the threshold.
        threshold: score of a desirable response; the mean over the prompt's responses if None.
        all_pairs: every pair that is no tie, not only the best against the worst.

    Raises:
        SetAside: if the scores imply no such label, as in a tie.

    Example:
        >>> three = Group("Name a bird.", ["An owl.", "A bat.", "A crow."])
        >>> label_from_scores(three, [2.0, -1.0, 0.5], "pairs").pairs
        (Pair(better=0, worse=1, probability=1.0, margin=3.0),)
        >>> label_from_scores(three, [2.0, -1.0, 0.5], "desirable").responses  # 0.5 is the mean
        ['An owl.', 'A bat.']
        >>> label_from_scores(three, [2.0, -1.0, 2.0], "ranking").ranking
        (1, 3, 1)
    """
    group = without_labels(group)
    if label_kind == "ratings":
        ratings = tuple({"score": score} for score in scores)
        return to_ratings(group._replace(ratings=ratings))
    if label_kind == "demonstrations":
        return _best_response(group, scores, threshold)
    if label_kind == "desirable":
        return _binary_labels(group, scores, threshold)
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    if scores[best] == scores[worst]:
        raise SetAside(TIE)
    if label_kind == "ranking":
        return group._replace(ranking=_places(scores))
    candidates = combinations(range(len(scores)), 2) if all_pairs else [(best, worst)]
    pairs = _pairs_from_scores(scores, candidates)
    return to_pairs(group._replace(pairs=pairs))


def _best_response(group: Group, scores: Sequence[float], threshold: float | None) -> Group:
    """The first of the best responses, unless it scores below the threshold."""
    best_score = max(scores)
    if threshold is not None and best_score < threshold:
        raise SetAside("no response is worth imitating")
    best = scores.index(best_score)
    return group._replace(responses=[group.responses[best]])


def _binary_labels(group: Group, scores: Sequence[float], threshold: float | None) -> Group:
    """Desirable above the threshold or mean, undesirable below; a response exactly at it has no label."""
    if threshold is None:
        if min(scores) == max(scores):  # their rounded mean may differ from them
            raise SetAside(TIE)
        threshold = sum(scores) / len(scores)
    responses, desirable = [], []
    for response, score in zip(group.responses, scores, strict=True):
        if score != threshold:
            responses.append(response)
            desirable.append(score > threshold)
    if not responses:
        raise SetAside(TIE)
    return group._replace(responses=responses, desirable=tuple(desirable))


def _places(scores: Sequence[float]) -> tuple[int, ...]:
    """The place of each response, 1 for the best; equal scores share a place."""
    places = []
    for score in scores:
        num_better = sum(other > score for other in scores)
        places.append(1 + num_better)
    return tuple(places)


def _pairs_from_scores(
    scores: Sequence[float], candidates: Iterable[IndexPair]
) -> tuple[Pair, ...]:
    """The candidates whose scores differ, the better response first."""
    pairs = []
    for i, j in candidates:
        better, worse = (i, j) if scores[i] > scores[j] else (j, i)
        margin = scores[better] - scores[worse]
        if scores[better] != scores[worse]:
            pairs.append(Pair(better, worse, margin=margin))
    return tuple(pairs)


def label_from_probabilities(
    group: Group, probabilities: Mapping[IndexPair, float], label_kind: str
) -> Group:
    """The group with labels of the kind ``label_kind``, from comparisons of its responses.

    Pairs are the compared ones, the more probable response first, with their probabilities. For any other kind the
    score of a response is its mean probability of winning against the responses it was compared with, and 1/2 is the
    threshold; a response that was never compared has no label.

    Args:
        group: any labels it has are replaced.
        probabilities: that the first of two responses, by index, is better than the second.
        label_kind: as for `label_from_scores`.

    Raises:
        SetAside: if all probabilities are 1/2.

    Example:
        >>> three = Group("Name a bird.", ["An owl.", "A bat.", "A crow."])
        >>> label_from_probabilities(three, {(0, 1): 0.75, (0, 2): 0.25}, "pairs").pairs
        (Pair(better=0, worse=1, probability=0.75, margin=0.0), Pair(better=2, worse=0, probability=0.75, margin=-0.0))
        >>> comparisons = {(0, 1): 0.75, (0, 2): 0.25, (1, 2): 0.5}
        >>> label_from_probabilities(three, comparisons, "ranking").ranking  # scores 0.5, 0.375, 0.625
        (2, 3, 1)
    """
    comparisons = []
    wins: dict[int, list[float]] = {}
    for (i, j), probability in probabilities.items():
        comparisons.append(Pair(i, j, probability))
        wins.setdefault(i, []).append(probability)
        wins.setdefault(j, []).append(1 - probability)
    pairs = ordered_pairs(comparisons)
    if not pairs:
        raise SetAside(TIE)
    group = without_labels(group)
    if label_kind == "pairs":
        return to_pairs(group._replace(pairs=pairs))
    responses, scores = [], []
    for i in sorted(wins):
        responses.append(group.responses[i])
        scores.append(sum(wins[i]) / len(wins[i]))
    group = group._replace(responses=responses)
    threshold = 0.5 if label_kind == "desirable" else None
    return label_from_scores(group, scores, label_kind, threshold=threshold)


def select_labels(group: Group, label_kind: str) -> Group:
    """The group with the labels of the kind ``label_kind`` that it has or that its own imply.

    Raises:
        SetAside: if there are none.
    """
    ordered = group._replace(pairs=ordered_pairs(group.pairs))
    return convert_labels(ordered, LabelKind(label_kind))


def make_result(records: tuple[Record, ...], label: Callable[[], Group]) -> FeedbackResult:
    """The result with the group that ``label`` returns, or with the reason why it sets the group aside."""
    try:
        return FeedbackResult(label(), records)
    except SetAside as error:
        return FeedbackResult(None, records, str(error))


def read_comparison(record: Record) -> tuple[IndexPair, float | None]:
    """The pair of a record, smaller index first, and the probability that this response is better."""
    i, j = record["responses"]
    probability = record["probability"]
    if i < j:
        return (i, j), probability
    if probability is not None:
        probability = 1 - probability
    return (j, i), probability


def mean_probabilities(records: Sequence[Record]) -> dict[IndexPair, float]:
    """Mean probability that the first of two responses is better, over both orders of presentation.

    It is 1/2 within the tie margin. A pair without a verdict in one of the orders is left out: the other verdict alone
    would be subject to position bias.
    """
    tie_margin = 0.0
    verdicts: dict[IndexPair, list[float]] = {}
    unread = set()
    for record in records:
        tie_margin = max(tie_margin, record.get("doubt", 0.0))
        pair, probability = read_comparison(record)
        if probability is None:
            unread.add(pair)
        else:
            verdicts.setdefault(pair, []).append(probability)
    means = {}
    for pair, values in verdicts.items():
        if pair in unread:
            continue
        mean = sum(values) / len(values)
        is_decisive = abs(mean - 0.5) > tie_margin
        means[pair] = mean if is_decisive else 0.5
    return means


def pair_probabilities(group: Group, result: FeedbackResult) -> dict[IndexPair, float]:
    """Probability that the first of two responses of ``group`` is better according to ``result``; 1/2 for a tie.

    From the recorded comparisons or scores; else from the pairs of the labelled group.
    """
    if any("responses" in record for record in result.records):
        return mean_probabilities(result.records)
    index_pairs = list(combinations(range(len(group.responses)), 2))
    probabilities = {}
    for record in result.records:
        if "scores" in record:
            scores = record["scores"]
            for i, j in index_pairs:
                if scores[i] is not None and scores[j] is not None:
                    probabilities[i, j] = win_score(scores[i], scores[j])
            return probabilities
    if result.group is None:
        return dict.fromkeys(index_pairs, 0.5) if result.reason == TIE else {}
    for pair in result.group.pairs:
        sides = [result.group.responses[index] for index in pair[:2]]
        if not all(side in group.responses for side in sides):
            continue  # a source may write responses of its own, such as revisions
        i, j = map(group.responses.index, sides)
        if i < j:
            probabilities[i, j] = pair.probability
        else:
            probabilities[j, i] = 1 - pair.probability
    return probabilities


def prompt_hash(group: Group) -> str:
    """Hash of the prompt, the same in every process.

    Example:
        >>> prompt_hash(Group("Name a bird.", [])) == prompt_hash(Group("Name a bird.", ["An owl."]))
        True
    """
    content = json.dumps(group.prompt).encode()
    return hashlib.sha256(content).hexdigest()[:16]
