"""A language model compares two responses (Lee et al., 2023, https://arxiv.org/abs/2309.00267)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import NamedTuple

from lit_align import Register, hookimpl
from lit_align.errors import SetAside
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import (
    IndexPair,
    Record,
    label_from_probabilities,
    make_result,
    mean_probabilities,
    prompt_hash,
)
from lit_align.feedback.critique_revise import load_principles
from lit_align.judges.base import (
    JudgeModel,
    Reply,
    choose_options,
    format_prompt,
    load_template,
    text_hash,
)
from lit_align.plugin_wrapping import Wrapping
from lit_align.rewards.base import response_text


class Question(NamedTuple):
    """One comparison as it is shown to the judge.

    Args:
        group: its group, by index.
        responses: the two responses by index, the first of them shown as A.
        text: the rendered template.
    """

    group: int
    responses: IndexPair
    text: str


@dataclass(frozen=True)
class Judge(Feedback):
    """Pairwise preferences from the probabilities of the answers A and B; of K responses, all pairs are compared.

    Judges have a position bias. With ``swap`` each pair is shown in both orders and the label is the mean: a soft
    label, and a tie where only the position decides. Without, a hash of the pair decides the order.

    Args:
        model: the judge.
        template: of the question: ``compare``, or the path of a Jinja file with ``prompt``, ``a``, ``b`` and
            ``principle``.
        principles: a YAML list of rules, ``constitution`` for the built-in one; a hash of each pair draws one of them
            (Bai et al., 2022, https://arxiv.org/abs/2212.08073). Null asks which response is better overall.
        swap: show each pair in both orders, at the cost of two questions.
        tie_margin: distance from 1/2 within which a probability is a tie.

    Raises:
        ValueError: unless tie_margin is from 0 to 1/2.
    """

    model: JudgeModel
    template: str = "compare"
    principles: str | None = None
    swap: bool = True
    tie_margin: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.tie_margin < 0.5:
            raise ValueError(f"tie_margin must be from 0 to less than 1/2, got {self.tie_margin}")

    def wrapped(self) -> Sequence[Wrapping]:
        return (self.model,)

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        questions: list[Question] = []
        for k, group in enumerate(groups):
            questions.extend(self._questions(k, group))
        replies: list[Reply] = []
        if questions:
            texts = [question.text for question in questions]
            replies = choose_options(self.model, texts, ("A", "B"))
        records: list[list[Record]] = [[] for _ in groups]
        for question, reply in zip(questions, replies, strict=True):
            record = self._record(groups[question.group], question, reply)
            records[question.group].append(record)
        results = []
        for k, group in enumerate(groups):
            label = partial(_label, group, records[k], label_kind)
            results.append(make_result(tuple(records[k]), label))
        return results

    def _record(self, group: Group, question: Question, reply: Reply) -> Record:
        record: Record = {
            "source": f"{type(self.model).__name__} {self.template}",
            "prompt": prompt_hash(group),
            "responses": question.responses,
            "probability": reply.probabilities and reply.probabilities[0],
        }
        if self.tie_margin:
            record["doubt"] = self.tie_margin
        record.update(reply.record)
        if reply.text:
            record["said"] = reply.text
        if reply.reason:
            record["why"] = reply.reason
        return record

    def _questions(self, k: int, group: Group) -> list[Question]:
        """The comparisons of all pairs of different responses."""
        rules = load_principles(self.principles) if self.principles else [""]
        prompt = format_prompt(group.prompt)
        texts = [response_text(response) for response in group.responses]
        template = load_template(self.template)
        questions = []
        for i, j in combinations(range(len(texts)), 2):
            if texts[i] == texts[j]:
                continue
            pair_hash = text_hash(prompt, *sorted((texts[i], texts[j])))
            rule = rules[pair_hash // 2 % len(rules)]
            for a, b in self._orders(i, j, texts, pair_hash):
                text = template.render(prompt=prompt, a=texts[a], b=texts[b], principle=rule)
                questions.append(Question(k, (a, b), text))
        return questions

    def _orders(self, i: int, j: int, texts: Sequence[str], pair_hash: int) -> list[IndexPair]:
        """The orders in which a pair is shown; a single one does not depend on the order in the data."""
        if self.swap:
            return [(i, j), (j, i)]
        smaller_first = pair_hash % 2 == 1
        return [(i, j)] if smaller_first == (texts[i] < texts[j]) else [(j, i)]


def _label(group: Group, records: Sequence[Record], label_kind: str) -> Group:
    probabilities = mean_probabilities(records)
    if not probabilities:
        for record in records:
            if "why" in record:
                raise SetAside(record["why"])
        raise SetAside("no two responses that differ")
    return label_from_probabilities(group, probabilities, label_kind)


@hookimpl
def register_feedback(register: Register) -> None:
    register(Judge)
