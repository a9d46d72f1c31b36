"""Several generations with scores, as distilabel's pipelines write them: https://distilabel.argilla.io/latest/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    check_prompt,
    check_response,
    check_same_type,
    first_filled,
    has_numbers,
    list_field,
    number,
    other_fields,
    places_by_score,
    text_or_messages,
)
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, LabelKind, Text

PROMPTS = ("instruction", "prompt", "input")
CHOSEN = {"chosen", "chosen_response", "completion", "messages"}
RANKS = "ranks"
PAIRINGS = {
    "generations": ("ratings", "rating"),
    "responses": ("scores", "ratings"),
    "candidates": (RANKS,),
}
"""Columns with the responses, and those with their scores."""


@dataclass(frozen=True)
class Generations(Format):
    """Columns ``instruction``, ``generations`` (texts) and ``ratings``, as distilabel's pipelines write them.

    The prompt may be called ``prompt`` or ``input`` too; ``responses`` with ``scores``, and ``candidates`` with
    ``ranks`` (1 for the best) are read alike. A generation without a score is left out. Generations without a column of
    scores have no labels: they are for prompts, and for feedback.

    Example:
        >>> Generations()({"instruction": "2 + 2?", "generations": ["5", "4"], "ratings": [1, 5]}).ranking
        (2, 1)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.RANKING, LabelKind.RATINGS, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """A prompt and several generations, and no better and worse one chosen of them."""
        texts, scores = _columns(row)
        if not first_filled(row, PROMPTS) or not texts or not row.keys().isdisjoint(CHOSEN):
            return False
        if (texts, scores) == ("responses", "scores") and "prompt" in row:
            return False  # what this package writes of sampled responses
        return bool(scores) or texts == "generations"

    def row_label_kinds(self, row: Row) -> frozenset[LabelKind]:
        """Nothing but prompts where there are no scores, and no ratings where there are ranks."""
        _, scores = _columns(row)
        if not scores:
            return frozenset({LabelKind.PROMPTS})
        return self.label_kinds - {LabelKind.RATINGS} if scores == RANKS else self.label_kinds

    def __call__(self, row: Row) -> Group:
        """A group of the generations that have a score, or of all if there is no column of scores."""
        prompt_name = first_filled(row, PROMPTS)
        texts_name, scores_name = _columns(row)
        if not prompt_name or not texts_name:
            raise Malformed("not a prompt and a list of generations")
        prompt = check_prompt(text_or_messages(row, prompt_name))
        texts = list_field(row, texts_name)
        extra = other_fields(row, prompt_name, texts_name, *filter(None, [scores_name]))
        if not scores_name:
            filled = [text for text in texts if text is not None]
            return Group(prompt, _responses(filled, texts_name, prompt), extra=extra)
        values = list_field(row, scores_name)
        if len(texts) != len(values):
            raise Malformed(f"'{scores_name}' is not one for each of '{texts_name}'")
        scored = []
        for text, value in zip(texts, values, strict=True):
            if text is not None and value is not None:
                scored.append((text, number(value, "a rating")))
        if not scored:
            raise SetAside("no rated generation")
        scores = [score for _, score in scored]
        responses = _responses([text for text, _ in scored], texts_name, prompt)
        if scores_name == RANKS:
            places = places_by_score([-rank for rank in scores])
            return Group(prompt, responses, ranking=places, extra=extra)
        ratings = tuple({"rating": score} for score in scores)
        places = places_by_score(scores)
        return Group(prompt, responses, ranking=places, ratings=ratings, extra=extra)


def _columns(row: Row) -> tuple[str, str]:
    """The columns with the generations and with their scores; empty where there is none."""
    for texts, candidates in PAIRINGS.items():
        if not isinstance(row.get(texts), list):
            continue
        for scores in candidates:
            if has_numbers(row.get(scores)):
                return texts, scores
        if texts == "generations":
            return texts, ""
    return "", ""


def _responses(texts: list[Any], name: str, prompt: Text) -> list[Text]:
    responses = []
    for text in texts:
        response = check_response(text_or_messages({name: text}, name))
        check_same_type(prompt, response, "the prompt", name)
        responses.append(response)
    return responses


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Generations)
