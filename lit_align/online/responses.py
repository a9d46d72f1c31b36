"""Responses of a round: fresh from the policy, as the data has them, or replayed from earlier rounds."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import suppress

from lit_align.data.label_conversion import reference_answer, without_labels
from lit_align.errors import SetAside
from lit_align.models.generate import Completion
from lit_align.online.records import IDS_COLUMN, ROUND_COLUMNS, Record, TokenIds, group_from_record
from lit_align.rewards.base import as_response
from lit_align.types import Group, Text, Tree


def fresh_group(
    prompt: Group, completions: Sequence[Completion], texts: Sequence[str], with_reference: bool
) -> Group:
    """A prompt with its sampled responses and their ids.

    Args:
        prompt: group that the prompt is from.
        completions: sampled responses as ids.
        texts: the same as text.
        with_reference: put the data's reference answer before the samples, as the target.
    """
    responses: list[Text] = []
    ids: list[TokenIds] = []
    if with_reference:
        with suppress(SetAside):  # the feedback decides what a group without a reference is worth
            responses.append(reference_answer(prompt))
            ids.append(None)
    target = 0 if responses else None
    for completion, text in zip(completions, texts, strict=True):
        responses.append(as_response(prompt, text))
        ids.append(completion.ids)
    extra = {name: value for name, value in prompt.extra.items() if name not in ROUND_COLUMNS}
    extra[IDS_COLUMN] = ids
    fresh = without_labels(prompt)
    return fresh._replace(responses=responses, target=target, extra=extra)


def recorded_groups(prompts: Sequence[Tree]) -> list[Group]:
    """Groups as the data has them, with the ids of their responses where these are recorded."""
    groups = []
    for tree in prompts:
        group = tree.group
        ids = group.extra.get(IDS_COLUMN) or [None] * len(group.responses)
        extra = {**group.extra, IDS_COLUMN: ids}
        groups.append(group._replace(extra=extra))
    return groups


def replayed_groups(past: Sequence[Record], count: int, seed: str) -> list[Group]:
    """A random draw of ``count`` records of earlier rounds, with replacement.

    A record that was replayed is in the later rounds too; it is drawn no more often for that.
    """
    distinct: dict[str, Record] = {}
    for record in past:
        identity = [record["source"], record["responses"], record[IDS_COLUMN]]
        distinct[json.dumps(identity)] = record
    drawn = random.Random(seed).choices(list(distinct.values()), k=count)
    return [group_from_record(record) for record in drawn]
