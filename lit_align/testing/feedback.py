"""Check of what every source of feedback must satisfy."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lit_align.errors import SetAside
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.base import select_labels
from lit_align.feedback.checked_results import results_fault
from lit_align.plugin_signatures import signature_fault
from lit_align.plugin_wrapping import wrapping_fault
from lit_align.testing.formats import check_pair
from lit_align.testing.objective_checks import call, hold, require
from lit_align.testing.rewards import PROMPT, assistant_message
from lit_align.types import Group, Pair

LABEL_KINDS = ("pairs", "desirable", "ranking", "ratings", "demonstrations")


def _make_group(number: int, responses: Sequence[str], pairs: tuple[Pair, ...]) -> Group:
    messages = [assistant_message(response) for response in responses]
    return Group(PROMPT, messages, pairs, target=0, source=f"row {number}")


GROUPS = (
    _make_group(
        0,
        ("An owl.", "I don't know.", "A bird? " * 40),
        (Pair(0, 1), Pair(0, 2, 0.75), Pair(2, 1)),
    ),
    _make_group(1, ("🦉 بومة\n<b>owl</b>", "An owl."), (Pair(1, 0, 0.25),)),
    _make_group(2, ("An owl.",), ()),
)


def check_feedback(
    feedback: Feedback, groups: Sequence[Group] = GROUPS, label_kinds: Sequence[str] = LABEL_KINDS
) -> None:
    """Fail unless ``feedback`` returns one result for each group that depends on nothing else.

    A group comes back with labels of the requested kind, or is set aside with a reason; records can be written as JSON.
    All results must be the same in a second call, when groups come in another order and when a group comes alone,
    which on-line training relies on; and the groups must not be changed. A source that asks others must name them in
    ``wrapped``.

    Args:
        feedback: with the settings to check it at.
        groups: what to judge, at least one of two or more responses.
        label_kinds: the kinds of label to request.

    Raises:
        AssertionError: if a property does not hold.

    Example:
        >>> from lit_align.feedback.recorded import Recorded
        >>> check_feedback(Recorded())
    """
    name, groups_before = type(feedback).__name__, repr(groups)
    hold(signature_fault(feedback))
    hold(call(feedback, wrapping_fault, feedback))
    for label_kind in label_kinds:
        results = call(feedback, feedback, groups, label_kind)
        hold(results_fault(feedback, results, len(groups)))
        for group, result in zip(groups, results, strict=True):
            _check_result(name, group, result, label_kind)
        repetitions = {
            "in a second call": feedback(groups, label_kind),
            "in another order": feedback(groups[::-1], label_kind)[::-1],
            "one by one": [feedback([group], label_kind)[0] for group in groups],
        }
        labelled = [result.group for result in results]
        for condition, repeated in repetitions.items():
            require(
                [result.group for result in repeated] == labelled,
                f"{name} returns other {label_kind} when it is called {condition}",
            )
    require(repr(groups) == groups_before, f"{name} changes the groups it is given")


def _check_result(name: str, original: Group, result: FeedbackResult, label_kind: str) -> None:
    try:
        json.dumps(result.records)
    except TypeError as error:
        raise AssertionError(f"{name} returns a record that is not JSON: {error}") from error
    group = result.group
    if group is None:
        require(bool(result.reason), f"{name} sets a group aside without a reason")
        return
    require(
        group.prompt == original.prompt and group.source == original.source,
        f"{name} changes the prompt, or its source",
    )
    require(bool(group.responses), f"{name} returns a group without responses")
    try:
        selected = select_labels(group, label_kind)
    except SetAside as error:
        raise AssertionError(
            f"{name} was asked for {label_kind}, and its group has none: {error}"
        ) from error
    require(
        selected == group,
        f"{name} was asked for {label_kind} and returns other labels or responses besides: {group}",
    )
    for pair in group.pairs:
        check_pair(name, pair, len(group.responses))
