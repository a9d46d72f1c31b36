"""Responses rewritten by principles (Constitutional AI: Bai et al., 2022, https://arxiv.org/abs/2212.08073)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import yaml

from lit_align import Register, hookimpl
from lit_align.errors import ConfigError, SetAside
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import make_result, prompt_hash, select_labels, without_labels
from lit_align.judges.base import (
    JudgeModel,
    find_prompt_file,
    format_prompt,
    load_template,
    text_hash,
)
from lit_align.rewards.base import as_response, response_text
from lit_align.types import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet


@cache
def principles(name: str) -> list[str]:
    """The rules of a YAML list, ``constitution`` or a file of one's own.

    Raises:
        ConfigError: if it is no list of texts.
    """
    rules = yaml.safe_load(find_prompt_file(name, ".yaml").read_text("utf-8"))
    if not isinstance(rules, list) or not rules or not all(isinstance(rule, str) for rule in rules):
        raise ConfigError(f"{name} is no list of principles; write a YAML list of sentences")
    return rules


@dataclass(frozen=True)
class CritiqueRevise(Feedback):
    """Critique and revision: each response is rewritten by principles, and what it became is better than what it was.

    As demonstrations these are the revisions, as pairs each revision against its original.

    Args:
        model: who criticises and rewrites.
        principles: a YAML list of rules; the content of each response draws them.
        rounds: times that a response is rewritten, each by another rule.
        max_tokens: of a critique, and of a revision; a revision that has no end by then is not used.

    Raises:
        ValueError: if rounds or max_tokens is below 1.
    """

    model: JudgeModel
    principles: str = "constitution"
    rounds: int = 1
    max_tokens: int = 256

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.max_tokens < 1:
            raise ValueError(
                f"rounds and max_tokens must be at least 1, got {self.rounds} and {self.max_tokens}"
            )

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model.attach(adapters, tokenizer)

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        places = [(k, i) for k, group in enumerate(groups) for i in range(len(group.responses))]
        first = [response_text(groups[k].responses[i]) for k, i in places]
        now, records = list(first), [list[dict[str, Any]]() for _ in groups]
        for turn in range(self.rounds):
            known = [
                self._shown(groups[k], before, one, turn)
                for (k, _), before, one in zip(places, first, now, strict=True)
            ]
            critiques = self._say("critique", known, places, groups, records)
            more = [{**one, "critique": said} for one, said in zip(known, critiques, strict=True)]
            now = [
                new or old
                for new, old in zip(
                    self._say("revise", more, places, groups, records), now, strict=True
                )
            ]
        revised: list[dict[int, str]] = [{} for _ in groups]
        for (k, i), before, after in zip(places, first, now, strict=True):
            if after.strip() != before.strip():
                revised[k][i] = after
        return [
            make_result(tuple(told_of), partial(_label, group, new, label_kind))
            for group, told_of, new in zip(groups, records, revised, strict=True)
        ]

    def _shown(self, group: Group, first: str, now: str, turn: int) -> dict[str, str]:
        rules = principles(self.principles)
        rule = rules[(text_hash(format_prompt(group.prompt), first) + turn) % len(rules)]
        return {"prompt": format_prompt(group.prompt), "response": now, "principle": rule}

    def _say(
        self,
        wording: str,
        known: list[dict[str, str]],
        places: list[tuple[int, int]],
        groups: Sequence[Group],
        records: list[list[dict[str, Any]]],
    ) -> list[str]:
        replies = self.model.generate(
            [load_template(wording).render(**one) for one in known], self.max_tokens
        )
        for (k, i), reply in zip(places, replies, strict=True):
            asked = {
                "source": f"{type(self.model).__name__} {wording}",
                "prompt": prompt_hash(groups[k]),
                "response": i,
            }
            why = reply.reason or (
                "a revision that max_tokens cut" if reply.truncated and wording == "revise" else ""
            )
            records[k].append(
                {**asked, "said": reply.text, **reply.record, **({"why": why} if why else {})}
            )
        return ["" if reply.truncated and wording == "revise" else reply.text for reply in replies]


def _label(group: Group, revised: dict[int, str], label_kind: str) -> Group:
    if not revised:
        raise SetAside("a response that nothing was changed of")
    new = [as_response(group, text) for text in revised.values()]
    pairs = tuple(Pair(at, len(new) + at) for at in range(len(new)))
    return select_labels(
        without_labels(group)._replace(
            responses=[*new, *(group.responses[i] for i in revised)], pairs=pairs
        ),
        label_kind,
    )


@hookimpl
def register_feedback(register: Register) -> None:
    register(CritiqueRevise)
