"""A language model that says which of two responses is better (Lee et al., 2023, https://arxiv.org/abs/2309.00267)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from lit_align import Register, hookimpl
from lit_align.errors import SetAside
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import (
    label_from_probabilities,
    make_result,
    mean_probabilities,
    prompt_hash,
)
from lit_align.feedback.critique_revise import principles
from lit_align.judges.base import JudgeModel, format_prompt, load_template, text_hash
from lit_align.rewards.base import response_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet


class Question(NamedTuple):
    """One comparison as it is shown.

    Args:
        group: which group of those given.
        shown: the two responses by index, the first of them as A.
        text: what is asked.
    """

    group: int
    shown: tuple[int, int]
    text: str


@dataclass(frozen=True)
class Judge(Feedback):
    """Which of two responses is better, by the probability of the answers A and B; of K responses every two.

    Judges favour a place. With ``swap`` each pair is shown both ways and the label is the mean: soft, and a tie where
    the place alone decides. Without, the content of the pair draws the order.

    Args:
        model: who is asked.
        template: the wording: ``compare``, or the path of a Jinja file with ``prompt``, ``a``, ``b`` and ``principle``.
        principles: a YAML list of rules, ``constitution`` for the one that comes along; the content of each pair draws
            one (Bai et al., 2022, https://arxiv.org/abs/2212.08073). Null asks for what is better on the whole.
        swap: show each pair both ways, for two questions.
        tie_margin: how far from 1/2 a probability must be to be no tie.

    Raises:
        ValueError: unless doubt is from 0 to 1/2.
    """

    model: JudgeModel
    template: str = "compare"
    principles: str | None = None
    swap: bool = True
    tie_margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.tie_margin < 0.5:
            raise ValueError(f"doubt must be from 0 to less than 1/2, got {self.tie_margin}")

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model.attach(adapters, tokenizer)

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        asked = [
            question for k, group in enumerate(groups) for question in self._questions(k, group)
        ]
        replies = self.model.choose_option([one.text for one in asked], ("A", "B")) if asked else []
        records: list[list[dict[str, Any]]] = [[] for _ in groups]
        for one, reply in zip(asked, replies, strict=True):
            records[one.group].append(
                {
                    "source": f"{type(self.model).__name__} {self.template}",
                    "prompt": prompt_hash(groups[one.group]),
                    "responses": one.shown,
                    "probability": reply.probabilities and reply.probabilities[0],
                    **({"doubt": self.tie_margin} if self.tie_margin else {}),
                    **reply.record,
                    **({"said": reply.text} if reply.text else {}),
                    **({"why": reply.reason} if reply.reason else {}),
                }
            )
        return [
            make_result(told_of, partial(self._label, group, told_of, label_kind))
            for group, told_of in zip(groups, map(tuple, records), strict=True)
        ]

    def _questions(self, k: int, group: Group) -> list[Question]:
        said, asked = [response_text(response) for response in group.responses], []
        for i, j in combinations(range(len(said)), 2):
            if said[i] == said[j]:
                continue
            drawn = text_hash(format_prompt(group.prompt), *sorted((said[i], said[j])))
            rules = principles(self.principles) if self.principles else [""]
            ways = (
                [(i, j), (j, i)]
                if self.swap
                else [(i, j) if (drawn % 2) == (said[i] < said[j]) else (j, i)]
            )
            for a, b in ways:
                shown = {"prompt": format_prompt(group.prompt), "a": said[a], "b": said[b]}
                text = load_template(self.template).render(
                    **shown, principle=rules[drawn // 2 % len(rules)]
                )
                asked.append(Question(k, (a, b), text))
        return asked

    def _label(self, group: Group, records: Sequence[dict[str, Any]], label_kind: str) -> Group:
        chances = mean_probabilities(records)
        if not chances:
            raise SetAside(
                next(
                    (one["why"] for one in records if "why" in one), "no two responses that differ"
                )
            )
        return label_from_probabilities(group, chances, label_kind)


@hookimpl
def register_feedback(register: Register) -> None:
    register(Judge)
