"""Prompts with a completion, judged or not: https://huggingface.co/docs/trl/dataset_formats#prompt-completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    checked_prompt,
    checked_response,
    flag,
    text_or_messages,
    unused,
)
from lit_align.errors import Malformed
from lit_align.types import Group


@dataclass(frozen=True)
class Completions(Format):
    """Columns ``prompt`` and ``completion``, text or messages; ``label`` true or false is a thumbs up or down.

    Example:
        >>> Completions()({"prompt": "The sky is", "completion": " blue.", "label": True}).desirable
        (True,)
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset({"demonstrations", "desirable"})

    def recognises(self, row: Row) -> bool:
        """``prompt`` and ``completion``."""
        return {"prompt", "completion"} <= row.keys()

    def __call__(self, row: Row) -> Group:
        """The row as a group of one."""
        prompt, completion = text_or_messages(row, "prompt"), text_or_messages(row, "completion")
        if isinstance(prompt, str) != isinstance(completion, str):
            raise Malformed("one of 'prompt' and 'completion' is text, the other messages")
        desirable = (flag(row, "label"),) if "label" in row else ()
        extra = unused(row, "prompt", "completion", "label")
        return Group(
            checked_prompt(prompt), [checked_response(completion)], desirable=desirable, extra=extra
        )


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(Completions)
