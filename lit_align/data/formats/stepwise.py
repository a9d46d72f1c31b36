"""Steps of a solution with a label each: https://huggingface.co/docs/trl/v1.13.0/dataset_formats#stepwise-supervision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    BOOLEANS,
    check_prompt,
    list_field,
    number,
    other_fields,
    text_or_messages,
    wrong_type,
)
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind, SolutionStep, Text


@dataclass(frozen=True)
class Stepwise(Format):
    """Columns ``prompt``, ``completions`` with the steps of one response, and ``labels``, whether each is right.

    A label is true or false, a probability from 0 to 1, or null for a step that nobody labelled.

    Example:
        >>> row = {"prompt": "2 + 2 + 2?", "completions": ["2 + 2 = 4", "4 + 2 = 7"], "labels": [True, False]}
        >>> Stepwise()(row).steps
        ((SolutionStep(text='2 + 2 = 4', label=1.0), SolutionStep(text='4 + 2 = 7', label=0.0)),)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.STEPS})

    def recognises(self, row: Row) -> bool:
        """All three columns."""
        return {"prompt", "completions", "labels"} <= row.keys()

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        prompt = check_prompt(text_or_messages(row, "prompt"))
        texts, labels = list_field(row, "completions"), list_field(row, "labels")
        if len(texts) != len(labels):
            raise Malformed("'completions' and 'labels' are not of one length")
        if not texts:
            raise Malformed("no step")
        steps = []
        for text, label in zip(texts, labels, strict=True):
            steps.append(SolutionStep(_step_text(text), _step_label(label)))
        joined = "\n".join(step.text for step in steps)
        response: Text = joined
        if not isinstance(prompt, str):
            response = [{"role": "assistant", "content": joined}]
        extra = other_fields(row, "prompt", "completions", "labels")
        return Group(prompt, [response], steps=(tuple(steps),), extra=extra)


def _step_text(value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type("a step", "text", value)
    if not value.strip():
        raise Malformed("empty step")
    return value


def _step_label(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = BOOLEANS.get(value.strip().lower(), value)
    label = float(value) if isinstance(value, bool) else number(value, "the label of a step")
    if not 0 <= label <= 1:
        raise Malformed("the label of a step is not from 0 to 1")
    return label


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Stepwise)
