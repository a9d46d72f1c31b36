"""Call a feedback source and check what it returns, before anything is learned from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lit_align.errors import ConfigError, PluginError
from lit_align.feedback.base import Feedback, FeedbackResult
from lit_align.plugin_calls import call_plugin, describe_failure
from lit_align.plugin_contracts import require_contract, shown_name
from lit_align.types import Group, LabelKind


def check_suitable(feedback: Feedback, label_kind: str, *, verdicts: bool = False) -> None:
    """Refuse a source that cannot give what is needed, before it is asked and perhaps paid.

    Args:
        feedback: the source of the labels.
        label_kind: the requested kind of label.
        verdicts: whether it must judge the responses that it is given.

    Raises:
        ConfigError: naming the source and what it can give.
    """
    name = type(feedback).__name__
    if label_kind not in feedback.label_kinds:
        kinds = " and ".join(sorted(feedback.label_kinds))
        raise ConfigError(
            f"{name} gives {kinds}, and {label_kind} are needed; use another feedback source"
        )
    if verdicts and feedback.writes_responses:
        raise ConfigError(
            f"{name} writes responses of its own and has no verdict about given ones; use another feedback source"
        )


def checked_results(
    feedback: Feedback, groups: Sequence[Group], label_kind: str
) -> list[FeedbackResult]:
    """The labels of each group, of the requested kind.

    Args:
        feedback: the source of the labels.
        groups: prompts with responses.
        label_kind: the requested kind of label.

    Raises:
        PluginError: naming the source, if it fails or returns something else.
    """
    try:
        results = call_plugin(feedback, feedback, groups, label_kind)
    except Exception as error:  # the source may be a plugin's
        raise PluginError(describe_failure(feedback, error)) from error
    require_contract(results_fault(feedback, results, len(groups)))
    for group, result in zip(groups, results, strict=True):
        fault = None if result.group is None else _label_fault(result.group, label_kind)
        if fault:
            raise PluginError(
                f"{feedback} was asked for {label_kind}, and its result for {group.source or 'a group'} has {fault}"
            )
    return list(results)


def results_fault(feedback: Feedback, results: Any, count: int) -> str:
    """What is wrong with the type or the number of a source's results; empty if nothing is.

    Args:
        feedback: the source.
        results: its answer.
        count: how many groups there were.
    """
    is_list = isinstance(results, list | tuple) and not isinstance(results, FeedbackResult)
    if not is_list or not all(isinstance(result, FeedbackResult) for result in results):
        return f"{shown_name(feedback)} returned {_type_name(results)}; it must return a list of FeedbackResult"
    if len(results) != count:
        return f"{shown_name(feedback)} returned {len(results)} results for {count} groups; each group has one"
    return ""


def _label_fault(group: Group, label_kind: str) -> str:
    """What is wrong with the labels; empty if nothing is."""
    if not group.responses:
        return "no response"
    match label_kind:
        case LabelKind.PAIRS:
            return _pair_fault(group)
        case LabelKind.DESIRABLE:
            return _count_fault("binary labels", group.desirable, group)
        case LabelKind.RANKING:
            return _count_fault("places", group.ranking, group)
        case LabelKind.RATINGS:
            return _count_fault("ratings", group.ratings, group) or _rating_fault(group)
    return ""


def _pair_fault(group: Group) -> str:
    if not group.pairs:
        return "no comparison"
    indices = range(len(group.responses))
    for pair in group.pairs:
        if pair.better == pair.worse or pair.better not in indices or pair.worse not in indices:
            return f"a comparison of responses {pair.better} and {pair.worse} of {len(indices)}"
        if not 0 < pair.probability <= 1 or not math.isfinite(pair.margin):
            return f"a comparison with probability {pair.probability} and margin {pair.margin}"
    return ""


def _count_fault(name: str, labels: Sequence[Any], group: Group) -> str:
    if len(labels) == len(group.responses):
        return ""
    return f"{len(labels)} {name} for {len(group.responses)} responses"


def _rating_fault(group: Group) -> str:
    for rating in group.ratings:
        for attribute, value in rating.items():
            if not math.isfinite(value):
                return f"a rating of {value} for {attribute}"
    return ""


def _type_name(results: Any) -> str:
    if isinstance(results, list | tuple):
        types = {type(result).__name__ for result in results}
        return f"a list of {', '.join(sorted(types))}"
    return type(results).__name__
