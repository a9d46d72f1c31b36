"""Records of a round: JSON rows with the responses, their token ids, their labels, and who gave these."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lit_align.data.formats.groups import Groups, as_row
from lit_align.data.trained_prompts import seen_prompts
from lit_align.feedback import FeedbackResult
from lit_align.jsonl import write_jsonl
from lit_align.types import Group, Text

Record = dict[str, Any]
"""One prompt of a round, as it is written to ``rounds/N.jsonl`` and saved in checkpoints."""

TokenIds = list[int] | None
"""Ids of a response as it was sampled; None if it was not."""

IDS_COLUMN = "tokens"
"""Column with the ids of each response."""

ROUND_COLUMNS = {"samples", "records", "round", "step", "set_aside"}
"""Columns that describe a round; they do not apply to new responses to the prompt."""


def make_record(group: Group, result: FeedbackResult) -> Record:
    """Record of a group: the labelled responses with their ids, the feedback's records, and all samples if more.

    Args:
        group: as it was given to the feedback, with ids of its responses in ``extra``.
        result: of the feedback; its group is None if it set the group aside.
    """
    labelled = group if result.group is None else result.group
    extra = {name: value for name, value in labelled.extra.items() if name != "set_aside"}
    ids = group.extra[IDS_COLUMN]
    extra[IDS_COLUMN] = match_ids(group.responses, ids, labelled.responses)
    if labelled.responses != group.responses:
        extra["samples"] = group.responses
    record = as_row(labelled._replace(extra=extra))
    return {**record, "source": group.source, "records": list(result.records)}


def group_from_record(record: Record) -> Group:
    """The group that a record was made of, with its labels."""
    return Groups()(record)._replace(source=record["source"])


def match_ids(responses: list[Text], ids: list[TokenIds], selected: list[Text]) -> list[TokenIds]:
    """Ids of the selected responses; the same text may have been sampled several times, as other tokens.

    Args:
        responses: all responses.
        ids: of each of them.
        selected: responses whose ids are returned; None for those that are not among all.

    Example:
        >>> match_ids(["a", "b", "a"], [[1], [2], [3, 4]], ["a", "a", "c"])
        [[1], [3, 4], None]
    """
    ids_by_text = defaultdict(list)
    for response, response_ids in zip(responses, ids, strict=True):
        ids_by_text[json.dumps(response)].append(response_ids)
    matched: list[TokenIds] = []
    for response in selected:
        candidates = ids_by_text[json.dumps(response)]
        matched.append(candidates.pop(0) if candidates else None)
    return matched


def describe_seen_scores(records: Sequence[Record], trained: frozenset[str]) -> str:
    """The mean score of the responses to prompts that the reward model has seen, and to others; empty without scores.

    Args:
        records: of a round; a reward's have the ``scores`` of the responses.
        trained: hashes of the prompts that the reward model was trained on.

    Example:
        >>> from lit_align.data.trained_prompts import prompt_keys
        >>> records = [{"prompt": p, "records": [{"scores": s}]} for p, s in (("a", [1.0, 2.0]), ("b", [0.5, None]))]
        >>> describe_seen_scores(records, frozenset(prompt_keys(["a"])))
        '; mean score 1.50 on prompts that the reward model has seen, 0.50 on others'
    """
    if not trained:
        return ""
    by_kind: dict[bool, list[float]] = {True: [], False: []}
    for record, is_seen in zip(
        records, seen_prompts([record["prompt"] for record in records], trained), strict=True
    ):
        for query in record["records"]:
            scores = query.get("scores") or ()
            by_kind[is_seen] += [score for score in scores if score is not None]
    parts = []
    names = {True: "prompts that the reward model has seen", False: "others"}
    for is_seen, scores in by_kind.items():
        if scores:
            parts.append(f"{fmean(scores):.2f} on {names[is_seen]}")
    return f"; mean score {', '.join(parts)}" if parts else ""


def write_records(path: Path, records: list[Record]) -> None:
    """Write the records of a round; the file is complete or missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    write_jsonl(partial, records)
    partial.replace(path)
