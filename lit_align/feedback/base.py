"""What a source of feedback sees and what it must answer."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from lit_align.data.label_conversion import convert_labels, ordered_pairs, to_pairs, to_ratings
from lit_align.errors import SetAside
from lit_align.types import Group, LabelKind, Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet

TIE = "a tie"
"""Why a group without a label was set aside, where it was read and nothing is better than anything else."""


class FeedbackResult(NamedTuple):
    """What somebody thinks of one group.

    Args:
        group: with the labels that were asked for, and the responses that have one; None if it is set aside.
        records: one for each question that was asked, to be written down as JSON: who was asked (``source``), a name
            for the prompt (``prompt``), and what it took, ``cost`` and ``seconds``; a comparison also has
            ``responses``, the two by index in the order in which they were shown, and the ``probability`` that the
            first of them is better, None where there is no verdict, with ``why``, and ``doubt``, how far from 1/2 it
            must be to be no tie, unless that is 0.
        reason: what set it aside.
    """

    group: Group | None
    records: tuple[dict[str, Any], ...] = ()
    reason: str = ""


class Feedback(ABC):
    """Who labels responses: a frozen dataclass whose fields are its settings.

    It judges text, and knows nothing of the objective but which labels that takes.
    """

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:  # noqa: B027 - most need nothing
        """Take what it needs of the model that is in memory; called once, before the first question.

        Args:
            roles: the base and the roles on it.
            tokenizer: the base's, with its chat template.
        """

    def state(self) -> dict[str, Any]:
        """What it has learned since the run began, for the checkpoint: tensors, numbers and text."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - most learn nothing
        """Take back what `state` gave."""

    @abstractmethod
    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        """An opinion of each group, in order.

        Args:
            groups: prompts with responses; labels that they carry are only looked at by who says so.
            label_kind: the label that is asked for: ``"pairs"``, ``"desirable"``, ``"ranking"``, ``"ratings"`` or
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
    """The group with labels of the kind ``label_kind``, and those of its responses that have one.

    Args:
        group: whose labels, if it has any, are replaced.
        scores: of each response, higher for a better one.
        label_kind: pairs are the best against the worst; desirable is what lies above the threshold, and undesirable what
            lies below; a ranking has ties; ratings are the ``score`` itself; the demonstration is the best response, of
            equal ones the first, unless it lies below the threshold.
        threshold: what a desirable response is worth; the mean of the prompt's responses if None.
        all_pairs: all pairs that are no tie, not only the best against the worst.

    Raises:
        SetAside: if the scores say nothing of that kind, as a tie does.

    Example:
        >>> three = Group("Name a bird.", ["An owl.", "A bat.", "A crow."])
        >>> label_from_scores(three, [2.0, -1.0, 0.5], "pairs").pairs
        (Pair(better=0, worse=1, probability=1.0, margin=3.0),)
        >>> label_from_scores(three, [2.0, -1.0, 0.5], "desirable").responses  # 0.5 is the mean, neither above nor below
        ['An owl.', 'A bat.']
        >>> label_from_scores(three, [2.0, -1.0, 2.0], "ranking").ranking
        (1, 3, 1)
        >>> label_from_scores(three, [2.0, -1.0, 2.0], "demonstrations").responses
        ['An owl.']
    """
    group = without_labels(group)
    best = max(range(len(scores)), key=scores.__getitem__)
    worst = min(range(len(scores)), key=scores.__getitem__)
    if label_kind == "ratings":
        return to_ratings(group._replace(ratings=tuple({"score": score} for score in scores)))
    if label_kind == "demonstrations":
        if threshold is not None and scores[best] < threshold:
            raise SetAside("no response is worth imitating")
        return group._replace(responses=[group.responses[best]])
    if label_kind == "desirable" and (threshold is not None or scores[best] != scores[worst]):
        line = sum(scores) / len(scores) if threshold is None else threshold
        keep = [i for i, score in enumerate(scores) if score != line]
        if not keep:
            raise SetAside(TIE)
        unpaired = tuple(scores[i] > line for i in keep)
        return group._replace(responses=[group.responses[i] for i in keep], desirable=unpaired)
    if scores[best] == scores[worst]:
        raise SetAside(TIE)
    if label_kind == "ranking":
        return group._replace(
            ranking=tuple(1 + sum(other > score for other in scores) for score in scores)
        )
    ways = combinations(range(len(scores)), 2) if all_pairs else [(best, worst)]
    pairs = [
        Pair(i, j, margin=scores[i] - scores[j])
        if scores[i] > scores[j]
        else Pair(j, i, margin=scores[j] - scores[i])
        for i, j in ways
        if scores[i] != scores[j]
    ]
    return to_pairs(group._replace(pairs=tuple(pairs)))


def label_from_probabilities(
    group: Group, chances: Mapping[tuple[int, int], float], label_kind: str
) -> Group:
    """The group with labels of the kind ``label_kind``, from comparisons of its responses.

    Pairs are those that were compared, the likelier way round and as probable as they are; for any other kind the score
    of a response is the chance that it wins against one of those it was compared with, and 1/2 the threshold. One that
    was compared with none has no label.

    Args:
        group: whose labels, if it has any, are replaced.
        chances: that the first of two responses, by index, is better than the second.
        label_kind: as for `label_from_scores`.

    Raises:
        SetAside: if all of them are coin tosses.

    Example:
        >>> three = Group("Name a bird.", ["An owl.", "A bat.", "A crow."])
        >>> label_from_probabilities(three, {(0, 1): 0.75, (0, 2): 0.25}, "pairs").pairs
        (Pair(better=0, worse=1, probability=0.75, margin=0.0), Pair(better=2, worse=0, probability=0.75, margin=-0.0))
        >>> label_from_probabilities(three, {(0, 1): 0.75, (0, 2): 0.25, (1, 2): 0.5}, "ranking").ranking  # 0.5, 0.375, 0.625
        (2, 3, 1)
    """
    pairs = ordered_pairs(tuple(Pair(i, j, chance) for (i, j), chance in chances.items()))
    if not pairs:
        raise SetAside(TIE)
    if label_kind == "pairs":
        return to_pairs(without_labels(group)._replace(pairs=pairs))
    won: dict[int, list[float]] = {}
    for (i, j), chance in chances.items():
        won.setdefault(i, []).append(chance)
        won.setdefault(j, []).append(1 - chance)
    group = without_labels(group)._replace(responses=[group.responses[i] for i in sorted(won)])
    scores = [sum(won[i]) / len(won[i]) for i in sorted(won)]
    return label_from_scores(
        group, scores, label_kind, threshold=0.5 if label_kind == "desirable" else None
    )


def select_labels(group: Group, label_kind: str) -> Group:
    """The labels of the kind ``label_kind`` that the group carries or that its own imply, and the responses that have one.

    Raises:
        SetAside: if there are none.
    """
    return convert_labels(group._replace(pairs=ordered_pairs(group.pairs)), LabelKind(label_kind))


def make_result(records: tuple[dict[str, Any], ...], label: Callable[[], Group]) -> FeedbackResult:
    """What ``label`` gives, or why it sets the group aside."""
    try:
        return FeedbackResult(label(), records)
    except SetAside as reason:
        return FeedbackResult(None, records, str(reason))


def mean_probabilities(records: Sequence[dict[str, Any]]) -> dict[tuple[int, int], float]:
    """The mean chance that the first of two responses is better, over the orders they were shown in; 1/2 in doubt.

    A pair of which an order has no readable verdict is left out: the other alone would be of that place.
    """
    each: dict[tuple[int, int], list[float | None]] = {}
    doubt = max((record.get("doubt", 0.0) for record in records), default=0.0)
    for record in records:
        (i, j), p = record["responses"], record["probability"]
        each.setdefault((min(i, j), max(i, j)), []).append(p if i < j or p is None else 1 - p)
    found = {
        pair: sum(known) / len(of)
        for pair, of in each.items()
        if len(known := _read(of)) == len(of)
    }
    return {pair: p if abs(p - 0.5) > doubt else 0.5 for pair, p in found.items()}


def _read(verdicts: Sequence[float | None]) -> list[float]:
    return [p for p in verdicts if p is not None]


def pair_probabilities(group: Group, opinion: FeedbackResult) -> dict[tuple[int, int], float]:
    """What an opinion says of two responses of ``group``: the chance that the first is better, 1/2 for a tie.

    From the comparisons or the scores on record; else from the pairs it came to.
    """
    if any("responses" in record for record in opinion.records):
        return mean_probabilities(opinion.records)
    every = list(combinations(range(len(group.responses)), 2))
    if scores := next((record["scores"] for record in opinion.records if "scores" in record), None):
        return {
            (i, j): 0.5 + 0.5 * ((scores[i] > scores[j]) - (scores[i] < scores[j]))
            for i, j in every
        }
    if opinion.group is None:
        return dict.fromkeys(every, 0.5) if opinion.reason == TIE else {}
    places = [group.responses.index(response) for response in opinion.group.responses]
    pairs = [
        (places[better], places[worse], chance) for better, worse, chance, _ in opinion.group.pairs
    ]
    return {(min(i, j), max(i, j)): chance if i < j else 1 - chance for i, j, chance in pairs}


def without_labels(group: Group) -> Group:
    """The group without labels."""
    return group._replace(pairs=(), desirable=(), ranking=(), ratings=(), target=None)


def prompt_hash(group: Group) -> str:
    """A name for the prompt, the same in every process.

    Example:
        >>> prompt_name(Group("Name a bird.", [])) == prompt_name(Group("Name a bird.", ["An owl."]))
        True
    """
    return hashlib.sha256(json.dumps(group.prompt).encode()).hexdigest()[:16]
