"""Questions about one answer that a judge answers with yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lit_align.judges.base import PROMPTS, JudgeModel, choose_options, format_prompt, load_template
from lit_align.types import Text

OPTIONS = ("Yes", "No")
CODE = (__name__, str(PROMPTS / "check.j2"))
"""What verdicts depend on besides the judge: for a task's ``grades_depend_on``."""


class Check(NamedTuple):
    """A question about an answer.

    Args:
        prompt: that was answered.
        response: the answer.
        question: that the judge answers with yes or no.
        right: answers that are known to be right, for comparison.
        wrong: answers that are known to be wrong.
    """

    prompt: Text
    response: str
    question: str
    right: Sequence[str] = ()
    wrong: Sequence[str] = ()


def ask_checks(judge: JudgeModel, checks: Sequence[Check]) -> list[float | None]:
    """The probability of yes for each check; None where the judge gave no verdict that can be read."""
    if not checks:
        return []
    template = load_template("check")
    questions = []
    for check in checks:
        prompt = format_prompt(check.prompt)
        questions.append(template.render(check._asdict() | {"prompt": prompt}))
    replies = choose_options(judge, questions, OPTIONS)
    return [None if reply.probabilities is None else reply.probabilities[0] for reply in replies]


def as_sum(probability: float | None, *, wanted: bool = True) -> tuple[float, float]:
    """Numerator and denominator of a verdict: 1 or 0 of 1 by its more probable side, nothing without one.

    Args:
        probability: of yes.
        wanted: what counts.

    Example:
        >>> as_sum(0.9), as_sum(0.9, wanted=False), as_sum(None)
        ((1.0, 1.0), (0.0, 1.0), (0.0, 0.0))
    """
    if probability is None:
        return 0.0, 0.0
    return float((probability > 0.5) == wanted), 1.0
