"""Convert a group's labels to the label kind that an objective trains on, and keep the responses that have one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from lit_align.batch_labels import UNRANKED
from lit_align.errors import SetAside
from lit_align.types import Group, LabelKind, Pair, Text

Label = TypeVar("Label")


def convert_labels(group: Group, label_kind: LabelKind, attributes: Sequence[str] = ()) -> Group:
    """The group with labels of one kind only, and the responses that have such a label.

    Args:
        group: with any labels.
        label_kind: the kind to convert to.
        attributes: for ratings: the attributes that are trained on; any if empty.

    Raises:
        SetAside: if the group has no such label and none can be derived.

    Example:
        >>> group = Group("2 + 2?", ["4", "5", "four"], ranking=(1, 2, 1))
        >>> convert_labels(group, LabelKind.DEMONSTRATIONS).responses
        ['4', 'four']
        >>> convert_labels(group, LabelKind.DESIRABLE).desirable
        (True, False, True)
    """
    if label_kind == LabelKind.RATINGS:
        return to_ratings(group, attributes)
    return CONVERTERS[label_kind](group)


def ordered_pairs(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Comparisons turned so that ``better`` is the more probable side; those at probability 0.5 are left out.

    Example:
        >>> ordered_pairs([Pair(0, 1, 0.25, 2.0), Pair(0, 2, 0.5)])
        (Pair(better=1, worse=0, probability=0.75, margin=-2.0),)
    """
    ordered = []
    for pair in pairs:
        if pair.probability > 0.5:
            ordered.append(pair)
        elif pair.probability < 0.5:
            ordered.append(Pair(pair.worse, pair.better, 1 - pair.probability, -pair.margin))
    return tuple(ordered)


def to_pairs(group: Group) -> Group:
    """The responses that are compared, and the reference answer if there is one."""
    pairs = group.pairs or _pairs_of_ranking(group)
    if not pairs:
        raise SetAside("no comparison")
    indices = set()
    for pair in pairs:
        indices |= {pair.better, pair.worse}
    if group.target is not None:
        indices.add(group.target)
    return select_responses(without_labels(group)._replace(pairs=pairs), indices, group.target)


def to_demonstrations(group: Group) -> Group:
    """The responses worth imitating: desirable, in first place, not the worse one of a pair; if so labelled."""
    worse = {pair.worse for pair in ordered_pairs(group.pairs)}
    best_place = min(filter(None, group.ranking), default=0)
    indices = []
    for i in range(len(group.responses)):
        is_desirable = not group.desirable or group.desirable[i]
        is_first = not group.ranking or group.ranking[i] == best_place
        if is_desirable and is_first and i not in worse:
            indices.append(i)
    if not indices:
        raise SetAside("no response worth imitating")
    return select_responses(without_labels(group), indices)


def reference_answer(group: Group) -> Text:
    """The target response if the group has one, else the first response worth imitating.

    Raises:
        SetAside: if no response is worth imitating.
    """
    if group.target is not None:
        return group.responses[group.target]
    return to_demonstrations(group).responses[0]


def to_binary_labels(group: Group) -> Group:
    """The responses with binary labels, from the pairs if there are none.

    A response that is only ever the better one of a pair is desirable, one that is only ever the worse one is not.
    """
    if group.desirable:
        return without_labels(group)._replace(desirable=group.desirable)
    pairs = ordered_pairs(group.pairs) or _pairs_of_ranking(group)
    better = {pair.better for pair in pairs}
    worse = {pair.worse for pair in pairs}
    indices = better ^ worse
    if not indices:
        raise SetAside("no binary label")
    desirable = tuple(i in better for i in range(len(group.responses)))
    return select_responses(without_labels(group)._replace(desirable=desirable), indices)


def to_ranking(group: Group) -> Group:
    """The responses with their ranking; one comparison of two responses is a ranking too."""
    ranking = group.ranking
    pairs = ordered_pairs(group.pairs)
    if not ranking and len(pairs) == 1 and len(group.responses) == 2:
        ranking = (1, 2) if pairs[0].better == 0 else (2, 1)
    if not ranking:
        raise SetAside("no ranking")
    if len(set(ranking)) == 1:
        raise SetAside("a ranking that ties all responses")
    _check_distinct(group, ranking)
    return without_labels(group)._replace(ranking=ranking)


def to_ratings(group: Group, attributes: Sequence[str] = ()) -> Group:
    """The responses that are rated in one of ``attributes``, or in any if it is empty."""
    indices = []
    for i, ratings in enumerate(group.ratings):
        is_rated = bool(ratings)
        if attributes:
            is_rated = not ratings.keys().isdisjoint(attributes)
        if is_rated:
            indices.append(i)
    if not indices:
        names = f" of {' or '.join(attributes)}" if attributes else ""
        raise SetAside(f"no rating{names}")
    return select_responses(without_labels(group)._replace(ratings=group.ratings), indices)


def to_steps(group: Group) -> Group:
    """The responses of which at least one step has a label."""
    indices = []
    for i, steps in enumerate(group.steps):
        if any(step.label is not None for step in steps):
            indices.append(i)
    if not indices:
        raise SetAside("no label of a step")
    return select_responses(without_labels(group)._replace(steps=group.steps), indices)


def to_prompt(group: Group) -> Group:
    """The prompt alone; ``extra`` stays, for rewards."""
    return without_labels(group)._replace(responses=[])


def unchanged(group: Group) -> Group:
    """The group with all its responses and labels."""
    return group


CONVERTERS: Mapping[LabelKind, Callable[[Group], Group]] = {
    LabelKind.PAIRS: to_pairs,
    LabelKind.DEMONSTRATIONS: to_demonstrations,
    LabelKind.DESIRABLE: to_binary_labels,
    LabelKind.RANKING: to_ranking,
    LabelKind.RATINGS: to_ratings,
    LabelKind.STEPS: to_steps,
    LabelKind.PROMPTS: to_prompt,
    LabelKind.RESPONSES: unchanged,
}
"""The converter to each label kind."""

_ANY = frozenset(LabelKind) - {LabelKind.RESPONSES}

DERIVABLE_FROM: Mapping[LabelKind, frozenset[LabelKind]] = {
    LabelKind.PAIRS: frozenset({LabelKind.PAIRS, LabelKind.RANKING}),
    LabelKind.DEMONSTRATIONS: frozenset({LabelKind.DEMONSTRATIONS}),
    LabelKind.DESIRABLE: frozenset({LabelKind.DESIRABLE, LabelKind.PAIRS, LabelKind.RANKING}),
    LabelKind.RANKING: frozenset({LabelKind.RANKING, LabelKind.PAIRS}),
    LabelKind.RATINGS: frozenset({LabelKind.RATINGS}),
    LabelKind.STEPS: frozenset({LabelKind.STEPS}),
    LabelKind.PROMPTS: _ANY,
    LabelKind.RESPONSES: _ANY,
}
"""The label kinds of a format from which each label kind can be derived."""


def _pairs_of_ranking(group: Group) -> tuple[Pair, ...]:
    """Every comparison that a ranking implies; ties imply none, and neither do responses that are the same."""
    places = [place or UNRANKED for place in group.ranking]
    pairs = []
    for i, place in enumerate(places):
        for j, other_place in enumerate(places):
            if place < other_place and group.responses[i] != group.responses[j]:
                pairs.append(Pair(i, j))
    return tuple(pairs)


def _check_distinct(group: Group, ranking: Sequence[int]) -> None:
    """Refuse a ranking that has the same response at two places."""
    for i, response in enumerate(group.responses):
        first = group.responses.index(response)
        if ranking[first] != ranking[i]:
            raise SetAside("the same response at two places of a ranking")


def without_labels(group: Group) -> Group:
    """The group without its labels."""
    return group._replace(pairs=(), desirable=(), ranking=(), ratings=(), steps=(), target=None)


def select_responses(group: Group, indices: Collection[int], target: int | None = None) -> Group:
    """The group with the responses at ``indices``, in their order, and the labels renumbered."""
    chosen = sorted(indices)
    # of those that were sampled alone, where feedback has added others
    ids = group.response_ids if len(group.response_ids) == len(group.responses) else ()
    position = {index: number for number, index in enumerate(chosen)}
    pairs = []
    for pair in group.pairs:
        better, worse = position[pair.better], position[pair.worse]
        pairs.append(pair._replace(better=better, worse=worse))
    return group._replace(
        responses=_pick(group.responses, chosen),
        pairs=tuple(pairs),
        desirable=tuple(_pick(group.desirable, chosen)),
        ratings=tuple(_pick(group.ratings, chosen)),
        steps=tuple(_pick(group.steps, chosen)),
        target=None if target is None else position[target],
        response_ids=tuple(_pick(ids, chosen)),
    )


def _pick(labels: Sequence[Label], indices: Sequence[int]) -> list[Label]:
    """The labels at ``indices``; none if there are no labels."""
    return [labels[i] for i in indices] if labels else []
