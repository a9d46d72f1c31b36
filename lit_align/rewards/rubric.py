"""Reward from a rubric: criteria of each row that a judge answers (Gunjal et al., 2025, https://arxiv.org/abs/2507.17746)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from lit_align import Register, hookimpl
from lit_align.errors import ConfigError, DataError
from lit_align.judges.base import (
    PROMPTS,
    JudgeModel,
    Reply,
    choose_options,
    format_prompt,
    load_template,
)
from lit_align.plugin_wrapping import Wrapping
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import column_list, column_text, response_text


class Criterion(NamedTuple):
    """One criterion of a rubric.

    Args:
        text: what holds of a good answer; of a bad one where the weight is negative.
        weight: how much it counts.
        must: whether an answer of which it does not hold gets 0 at most; its weight is then not negative.
    """

    text: str
    weight: float = 1.0
    must: bool = False


@dataclass(frozen=True)
class Rubric(Reward):
    r"""Weighted share of the criteria that hold of a response, by a judge's probability of Yes to each.

    .. math:: r = \frac{\sum_k w_k P_k(\text{Yes})}{\sum_{w_k > 0} w_k}, \quad
        \min(r, 0) \text{ where } P_k(\text{Yes}) < \tfrac{1}{2} \text{ of a criterion that must hold}

    With ``reference`` and the criterion "It says what the correct answer says." it is a reward from reference answers.
    A response is not scored if one of the judge's replies cannot be read.

    Args:
        model: the judge.
        column: of the data, with the row's criteria: texts, or objects with ``text``, ``weight`` (negative for a fault)
            and ``must``; null where all rows have the same ones.
        criteria: criteria of every row, besides.
        reference: column with a correct answer, which the judge is shown; null shows none.
        template: of the question: ``criterion``, or a Jinja file with ``prompt``, ``response``, ``criterion`` and
            ``reference``.

    Raises:
        ConfigError: if there is neither a column nor a criterion.
        DataError: at a row whose column has no criteria, or a fault that must hold, or that lacks the reference.
    """

    model: JudgeModel
    column: str | None = "rubric"
    criteria: tuple[str, ...] = ()
    reference: str | None = None
    template: str = "criterion"

    depends_on = (str(PROMPTS / "criterion.j2"),)

    def __post_init__(self) -> None:
        if self.column is None and not self.criteria:
            raise ConfigError("Rubric has neither a column nor criteria; name one of them")

    def wrapped(self) -> Sequence[Wrapping]:
        return (self.model,)

    def __call__(self, groups: Sequence[Group]) -> Scores:
        questions: list[str] = []
        rubrics: list[list[Criterion]] = []  # of each response
        for group in groups:
            rubric = self._rubric(group)
            for response in group.responses:
                rubrics.append(rubric)
                questions += self._questions(group, response_text(response), rubric)
        replies = choose_options(self.model, questions, ("Yes", "No"))
        scores, scored, start = [], [], 0
        for rubric in rubrics:
            score = _score(rubric, replies[start : start + len(rubric)])
            start += len(rubric)
            scores.append(score or 0.0)
            scored.append(score is not None)
        return Scores(torch.tensor(scores), scored=torch.tensor(scored))

    def _questions(self, group: Group, response: str, rubric: Sequence[Criterion]) -> list[str]:
        template, prompt = load_template(self.template), format_prompt(group.prompt)
        reference = ""
        if self.reference is not None:
            reference = column_text(group, self.reference)
            if not reference:
                raise DataError(
                    f"{group.source} has nothing in its column {self.reference!r}; name another as reference"
                )
        questions = []
        for criterion in rubric:
            questions.append(
                template.render(
                    prompt=prompt,
                    response=response,
                    criterion=criterion.text,
                    reference=reference,
                )
            )
        return questions

    def _rubric(self, group: Group) -> list[Criterion]:
        """The criteria of a row; at least one has a positive weight."""
        rubric = [Criterion(text) for text in self.criteria]
        if self.column is not None:
            entries = column_list(group, self.column)
            if not entries:
                raise DataError(
                    f"{group.source} has no list of criteria in its column {self.column!r}; name another column"
                )
            rubric += [_criterion(entry, group.source) for entry in entries]
        if not any(criterion.weight > 0 for criterion in rubric):
            raise DataError(f"no criterion of {group.source} has a weight over 0; give it one")
        return rubric


def _criterion(entry: Any, source: str) -> Criterion:
    """A criterion from a text, or from an object with text, weight and must; null, as Parquet gives it, is the default.

    Raises:
        DataError: if it is something else, or its weight or must is.

    Example:
        >>> _criterion({"text": "It names a bird.", "must": True}, "rows.jsonl:1")
        Criterion(text='It names a bird.', weight=1.0, must=True)
    """
    if isinstance(entry, str):
        return Criterion(entry)
    unknown = set(entry) - set(Criterion._fields) if isinstance(entry, dict) else {str(entry)}
    if unknown or not isinstance(entry.get("text"), str):
        raise DataError(
            f"a criterion of {source} is {entry!r}; it is a text, or has text, weight and must"
        )
    weight, must = entry.get("weight"), entry.get("must")
    if weight is None:
        weight = 1.0
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise DataError(
            f"the weight of a criterion of {source} is {weight!r}; give a finite number, or leave it out for 1"
        )
    if must is not None and not isinstance(must, bool):  # bool("false") would be true
        raise DataError(
            f"must of a criterion of {source} is {must!r}; give true or false, or leave it out for false"
        )
    criterion = Criterion(entry["text"], float(weight), bool(must))
    if criterion.must and criterion.weight < 0:
        raise DataError(
            f"a criterion of {source} is {entry!r}: a fault, with a weight below 0, that must hold; leave out must, or "
            "say what must hold instead"
        )
    return criterion


def _score(rubric: Sequence[Criterion], replies: Sequence[Reply]) -> float | None:
    """Score of a response; None if a reply cannot be read.

    Example:
        Of 3 + 1 points it has 3, less half of the fault that half holds of it.

        >>> rubric = [Criterion("a", 3.0), Criterion("b"), Criterion("c", -1.0)]
        >>> replies = [Reply((1.0, 0.0), "", {}), Reply((0.0, 1.0), "", {}), Reply((0.5, 0.5), "", {})]
        >>> _score(rubric, replies), _score([Criterion("b", must=True)], replies[1:2])
        (0.625, 0.0)
    """
    total = 0.0
    fails = False
    for criterion, reply in zip(rubric, replies, strict=True):
        if reply.probabilities is None:
            return None
        holds = reply.probabilities[0]
        total += criterion.weight * holds
        fails |= criterion.must and holds < 0.5
    if fails:  # a fault still counts, so that to meet the criterion is never worth less
        total = min(total, 0.0)
    return total / sum(max(criterion.weight, 0.0) for criterion in rubric)


@hookimpl
def register_rewards(register: Register) -> None:
    register(Rubric)
