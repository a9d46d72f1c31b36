"""Ratings of two turns, as MT-bench has them (Zheng et al., 2023, https://arxiv.org/abs/2306.05685)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lit_align import Register, hookimpl
from lit_align.evaluation.dialogues import DialogueTask, transcript
from lit_align.evaluation.suite import Item, Row
from lit_align.judges.base import (
    PROMPTS,
    JudgeModel,
    choose_options,
    expected_number,
    load_template,
)

LOW, HIGH = 1, 10


@dataclass(frozen=True, kw_only=True)
class MultiTurn(DialogueTask):
    """A judge rates the answer to each turn from 1 to 10, with the dialogue before it.

    The rating is the judge's expectation over the numbers it could say. Figures: the mean rating of each turn, and of
    ``all turns``. Column: ``turns``, a list of the user's turns, as MT-bench's question.jsonl has it, or ``prompt``.

    Args:
        judge: that rates.
        max_new_tokens: longest answer to one turn.
    """

    judge: JudgeModel
    max_new_tokens: int = 512

    grades_depend_on = (str(PROMPTS / "grade.j2"),)

    def grade(self, rows: Sequence[Row], responses: Sequence[Any]) -> list[Item]:
        questions = []
        for row, answers in zip(rows, responses, strict=True):
            for turn in range(len(answers)):
                questions.append(_question(row["turns"][: turn + 1], answers[: turn + 1]))
        ratings = iter(self._ratings(questions))
        items = []
        for row, answers in zip(rows, responses, strict=True):
            of_turns = [next(ratings) for _ in answers]
            read = [rating for rating in of_turns if rating is not None]
            sums = {"all turns": (sum(read), float(len(read)))}
            for number, rating in enumerate(of_turns, 1):
                sums[f"turn {number}"] = (rating or 0.0, float(rating is not None))
            details = {"answers": answers, "ratings": of_turns}
            items.append(Item(row["prompt"], sums, details, len(of_turns) - len(read)))
        return items

    def _ratings(self, questions: Sequence[str]) -> list[float | None]:
        """The expected rating for each question; None where none can be read."""
        numbers = range(LOW, HIGH + 1)
        replies = choose_options(self.judge, questions, [str(number) for number in numbers])
        return [expected_number(numbers, reply) for reply in replies]


def _question(turns: Sequence[str], answers: Sequence[str]) -> str:
    response = transcript(turns, answers)
    template = load_template("grade")
    return template.render(prompt=turns[0], response=response, low=LOW, high=HIGH)


@hookimpl
def register_tasks(register: Register) -> None:
    register(MultiTurn)
