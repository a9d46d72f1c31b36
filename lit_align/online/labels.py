"""Labels of a round: queried from the feedback, or as recorded; and the trees that records are trained as."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lit_align.data.label_conversion import convert_labels
from lit_align.data.tokenize import ChatTokenizer
from lit_align.errors import Malformed, Overlong, SetAside
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.checked_results import checked_results
from lit_align.online.records import IDS_COLUMN, Record, group_from_record, match_ids
from lit_align.processes import Processes
from lit_align.types import Group, LabelKind, Tree


def label_groups(
    groups: Sequence[Group],
    num_queried: int,
    feedback: Feedback | None,
    label_kind: LabelKind,
    processes: Processes,
) -> list[FeedbackResult]:
    """Labels of all groups: the first ``num_queried`` from the feedback, the others as recorded."""
    recorded = []
    for group in groups[num_queried:]:
        recorded.append(FeedbackResult(group, reason=group.extra.get("set_aside", "")))
    if feedback is None:
        return recorded
    queried = groups[:num_queried]

    def query(places: list[int]) -> list[FeedbackResult]:
        given = [_with_ids(queried[place]) for place in places]
        results = checked_results(feedback, given, label_kind)
        return [_without_ids(result) for result in results]

    if feedback.can_split():
        results = processes.share(len(queried), query)
    else:
        results = processes.from_first(partial(query, [*range(len(queried))]))
    return [*results, *recorded]


def _with_ids(group: Group) -> Group:
    """The group with the tokens of its responses, as a source of feedback may read them."""
    return group._replace(response_ids=group.extra.get(IDS_COLUMN, ()))


def _without_ids(result: FeedbackResult) -> FeedbackResult:
    """The result as it is kept: records have the ids in a column, and matched to the responses."""
    if result.group is None:
        return result
    return result._replace(group=result.group._replace(prompt_ids=(), response_ids=()))


def tree_from_record(record: Record, tokenizer: ChatTokenizer, label_kind: LabelKind) -> Tree:
    """The tree that a record is trained as; sampled responses are the very tokens that were sampled.

    Raises:
        SetAside: if the record has no label of this kind.
        Malformed: if it cannot be tokenized.
        Overlong: if it is longer than max_length.
    """
    group = group_from_record(record)
    tree = tokenizer.encode(convert_labels(group, label_kind)).tree
    limit = tokenizer.max_length - len(tree.prompt)
    responses, scored = list(tree.responses), list(tree.scored)
    sampled = match_ids(group.responses, record[IDS_COLUMN], tree.group.responses)
    for index, ids in enumerate(sampled):
        truncated = ids[:limit] if ids else []
        if truncated:
            responses[index], scored[index] = truncated, [True] * len(truncated)
    return tree._replace(responses=responses, scored=scored)


def reason_to_set_aside(
    record: Record, tokenizer: ChatTokenizer, label_kind: LabelKind, token_budget: int
) -> str:
    """Why a record cannot be trained on; empty if it can."""
    try:
        tree = tree_from_record(record, tokenizer, label_kind)
    except (Malformed, SetAside, Overlong) as reason:
        return str(reason)
    return "longer than token_budget" if tree.tokens > token_budget else ""
