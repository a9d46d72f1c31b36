"""What every source of feedback must satisfy."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lit_align.errors import SetAside
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.base import select_labels
from lit_align.testing.formats import check_pair
from lit_align.testing.objective_checks import require
from lit_align.testing.rewards import TURN
from lit_align.types import Group, Pair

KINDS = ("pairs", "desirable", "ranking", "ratings", "demonstrations")
GROUPS = tuple(
    Group(
        TURN,
        [[{"role": "assistant", "content": one}] for one in said],
        pairs,
        target=0,
        source=f"row {k}",
    )
    for k, (said, pairs) in enumerate(
        [
            (
                ("An owl.", "I don't know.", "A bird? " * 40),
                (Pair(0, 1), Pair(0, 2, 0.75), Pair(2, 1)),
            ),
            (("🦉 بومة\n<b>owl</b>", "An owl."), (Pair(1, 0, 0.25),)),
            (("An owl.",), ()),
        ]
    )
)


def check_feedback(
    feedback: Feedback, groups: Sequence[Group] = GROUPS, kinds: Sequence[str] = KINDS
) -> None:
    """Fail unless ``feedback`` has an opinion of each group that depends on nothing else.

    A group comes back with the labels that were asked for, or is set aside with a reason; what was asked can be written
    down as JSON. All must be the same when asked again, when groups come in another order and when one comes alone,
    which on-line training relies on; and what it is given must stay as it was.

    Args:
        feedback: with the settings to check it at.
        groups: what to judge, at least one of two or more responses.
        kinds: the labels to ask for.

    Raises:
        AssertionError: if a promise is broken.

    Example:
        >>> from lit_align.feedback.recorded import Recorded
        >>> check_feedback(Recorded())
    """
    name, before = type(feedback).__name__, repr(groups)
    for label_kind in kinds:
        found = feedback(groups, label_kind)
        require(
            len(found) == len(groups), f"{name} has {len(found)} opinions of {len(groups)} groups"
        )
        for group, opinion in zip(groups, found, strict=True):
            _check_opinion(name, group, opinion, label_kind)
        told = [opinion.group for opinion in found]
        for how, again in {
            "again": feedback(groups, label_kind),
            "in another order": feedback(groups[::-1], label_kind)[::-1],
            "one by one": [feedback([group], label_kind)[0] for group in groups],
        }.items():
            require(
                [one.group for one in again] == told,
                f"{name} has other opinions when asked {how} for {label_kind}",
            )
    require(repr(groups) == before, f"{name} changes the groups it is given")


def _check_opinion(name: str, asked: Group, opinion: FeedbackResult, label_kind: str) -> None:
    try:
        json.dumps(opinion.records)
    except TypeError as error:
        raise AssertionError(f"{name} keeps a record that is not JSON: {error}") from error
    group = opinion.group
    if group is None:
        require(bool(opinion.reason), f"{name} sets a group aside and does not say why")
        return
    require(
        group.prompt == asked.prompt and group.source == asked.source,
        f"{name} changes the prompt, or its source",
    )
    require(bool(group.responses), f"{name} gives a group without responses")
    try:
        same = select_labels(group, label_kind) == group
    except SetAside as reason:
        raise AssertionError(f"{name} was asked for {label_kind} and gives {reason}") from reason
    require(
        same,
        f"{name} was asked for {label_kind} and gives other labels or responses besides: {group}",
    )
    for pair in group.pairs:
        check_pair(name, pair, len(group.responses))
