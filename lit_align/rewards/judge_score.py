"""Reward from the ratings of a language model (direct RLAIF: Lee et al., 2023, https://arxiv.org/abs/2309.00267)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lit_align import Register, hookimpl
from lit_align.errors import ModelError
from lit_align.judges.base import (
    PROMPTS,
    JudgeModel,
    choose_options,
    expected_number,
    format_prompt,
    load_template,
)
from lit_align.plugin_wrapping import Wrapping
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text


@dataclass(frozen=True)
class JudgeScore(Reward):
    r"""The rating that a language model gives a response: its expectation over the numbers it could answer.

    .. math:: r = \sum_{k=\text{low}}^{\text{high}} k\,\frac{P(k)}{\sum_l P(l)}

    Args:
        model: the judge; one that only answers in text gives whole numbers.
        template: of the question: ``grade``, or a Jinja file with ``prompt``, ``response``, ``low`` and ``high``.
        low: the worst rating.
        high: the best rating.

    Raises:
        ValueError: unless low is below high.
        ModelError: at a response whose rating cannot be read: it is not guessed.
    """

    model: JudgeModel
    template: str = "grade"
    low: int = 1
    high: int = 10

    depends_on = (str(PROMPTS / "grade.j2"),)

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")

    def wrapped(self) -> Sequence[Wrapping]:
        return (self.model,)

    def __call__(self, groups: Sequence[Group]) -> Scores:
        ratings = range(self.low, self.high + 1)
        questions = []
        for group in groups:
            for response in group.responses:
                questions.append(self._question(group, response_text(response)))
        scores = []
        for reply in choose_options(self.model, questions, [str(rating) for rating in ratings]):
            score = expected_number(ratings, reply)
            if score is None:
                raise ModelError(
                    f"{type(self.model).__name__} gave no rating that can be read ({reply.reason}); use one that "
                    "returns log-probabilities, or change the template"
                )
            scores.append(score)
        return Scores(torch.tensor(scores))

    def _question(self, group: Group, text: str) -> str:
        template = load_template(self.template)
        prompt = format_prompt(group.prompt)
        return template.render(prompt=prompt, response=text, low=self.low, high=self.high)


@hookimpl
def register_rewards(register: Register) -> None:
    register(JudgeScore)
