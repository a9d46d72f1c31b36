"""Critique and revision (Constitutional AI: Bai et al., 2022, https://arxiv.org/abs/2212.08073)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import yaml

from lit_align import Register, hookimpl
from lit_align.checks import check_at_least
from lit_align.data.label_conversion import without_labels
from lit_align.errors import ConfigError, SetAside
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import Record, make_result, prompt_hash, select_labels
from lit_align.judges.base import (
    JudgeModel,
    Reply,
    find_prompt_file,
    format_prompt,
    load_template,
    text_hash,
)
from lit_align.plugin_contracts import replies_fault, require_contract
from lit_align.plugin_wrapping import Wrapping
from lit_align.rewards.base import as_response, response_text
from lit_align.types import Pair


@cache
def load_principles(name: str) -> list[str]:
    """The rules in a YAML list: ``constitution``, or a file.

    Raises:
        ConfigError: if it is no list of texts.
    """
    rules = yaml.safe_load(find_prompt_file(name, ".yaml").read_text("utf-8"))
    if not isinstance(rules, list) or not rules or not all(isinstance(rule, str) for rule in rules):
        raise ConfigError(f"{name} is no list of principles; write a YAML list of sentences")
    return rules


class Draft(NamedTuple):
    """A response on its way through the rounds of revision.

    Args:
        group: its group, by index.
        response: its index in the group.
        original: its text before the first round.
        text: its text after the latest round.
    """

    group: int
    response: int
    original: str
    text: str


@dataclass(frozen=True)
class CritiqueRevise(Feedback):
    """Rewrite each response by principles; the revision is better than the original.

    Demonstrations are the revisions; pairs are each revision against its original.

    Args:
        model: the language model that criticises and rewrites.
        principles: a YAML list of rules; one is drawn by the hash of the response.
        rounds: revisions of each response, each by another rule.
        max_tokens: of a critique, and of a revision; a revision that exceeds it is not used.

    Raises:
        ValueError: if rounds or max_tokens is below 1.
    """

    label_kinds = frozenset({"pairs", "desirable", "demonstrations"})
    writes_responses = True

    model: JudgeModel
    principles: str = "constitution"
    rounds: int = 1
    max_tokens: int = 256

    def __post_init__(self) -> None:
        check_at_least("rounds", self.rounds, 1)
        check_at_least("max_tokens", self.max_tokens, 1)

    def wrapped(self) -> Sequence[Wrapping]:
        return (self.model,)

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        drafts = []
        for k, group in enumerate(groups):
            for i, response in enumerate(group.responses):
                text = response_text(response)
                drafts.append(Draft(k, i, text, text))
        records: list[list[Record]] = [[] for _ in groups]
        for round_number in range(self.rounds):
            drafts = self._revise(groups, drafts, round_number, records)
        revisions: list[dict[int, str]] = [{} for _ in groups]
        for draft in drafts:
            if draft.text.strip() != draft.original.strip():
                revisions[draft.group][draft.response] = draft.text
        results = []
        for k, group in enumerate(groups):
            label = partial(_label, group, revisions[k], label_kind)
            results.append(make_result(tuple(records[k]), label))
        return results

    def _revise(
        self,
        groups: Sequence[Group],
        drafts: list[Draft],
        round_number: int,
        records: list[list[Record]],
    ) -> list[Draft]:
        """The drafts after one round; a draft without a complete revision stays as it is."""
        rules = load_principles(self.principles)
        variables = []
        for draft in drafts:
            prompt = format_prompt(groups[draft.group].prompt)
            rule = rules[(text_hash(prompt, draft.original) + round_number) % len(rules)]
            variables.append({"prompt": prompt, "response": draft.text, "principle": rule})
        critiques = self._generate("critique", variables, groups, drafts, records)
        for values, critique in zip(variables, critiques, strict=True):
            values["critique"] = critique.text
        revisions = self._generate("revise", variables, groups, drafts, records)
        revised = []
        for draft, revision in zip(drafts, revisions, strict=True):
            is_complete = revision.text and not revision.truncated
            revised.append(draft._replace(text=revision.text) if is_complete else draft)
        return revised

    def _generate(
        self,
        template_name: str,
        variables: list[dict[str, str]],
        groups: Sequence[Group],
        drafts: list[Draft],
        records: list[list[Record]],
    ) -> list[Reply]:
        """The judge's reply for each draft; adds a record of each."""
        template = load_template(template_name)
        questions = [template.render(**values) for values in variables]
        replies = self.model.generate(questions, self.max_tokens)
        require_contract(replies_fault(self.model, replies, len(questions)))
        for draft, reply in zip(drafts, replies, strict=True):
            record: Record = {
                "source": f"{type(self.model).__name__} {template_name}",
                "prompt": prompt_hash(groups[draft.group]),
                "response": draft.response,
                "said": reply.text,
                **reply.record,
            }
            if reply.reason:
                record["why"] = reply.reason
            elif reply.truncated and template_name == "revise":
                record["why"] = "a revision that max_tokens cut"
            records[draft.group].append(record)
        return replies


def _label(group: Group, revisions: dict[int, str], label_kind: str) -> Group:
    if not revisions:
        raise SetAside("no response was changed by its revision")
    responses = [as_response(group, text) for text in revisions.values()]
    num_revised = len(responses)
    responses.extend(group.responses[i] for i in revisions)
    pairs = tuple(Pair(i, num_revised + i) for i in range(num_revised))
    revised = without_labels(group)._replace(responses=responses, pairs=pairs)
    return select_labels(revised, label_kind)


@hookimpl
def register_feedback(register: Register) -> None:
    register(CritiqueRevise)
