"""RewardBench 2's prompts (Malik et al., 2025, https://huggingface.co/datasets/allenai/reward-bench-2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    check_prompt,
    check_response,
    list_field,
    other_fields,
    text_field,
)
from lit_align.data.formats.preferences import is_list_of_texts
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind, Message, Pair


@dataclass(frozen=True)
class RewardBench2(Format):
    """Columns ``prompt``, ``chosen`` and ``rejected``, the last two lists of texts: each chosen one is better.

    Example:
        >>> RewardBench2()({"prompt": "2 + 2?", "chosen": ["4"], "rejected": ["5", "3"]}).pairs[1]
        Pair(better=0, worse=2, probability=1.0, margin=0.0)
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """``prompt`` and two lists of texts."""
        return "prompt" in row and all(
            is_list_of_texts(row.get(name)) for name in ("chosen", "rejected")
        )

    def __call__(self, row: Row) -> Group:
        """A group of all responses, the chosen ones first."""
        prompt: list[Message] = [{"role": "user", "content": text_field(row, "prompt")}]
        chosen, rejected = _answers(row, "chosen"), _answers(row, "rejected")
        if any(answer in rejected for answer in chosen):
            raise Malformed("chosen equals rejected")
        pairs = []
        for better in range(len(chosen)):
            for worse in range(len(rejected)):
                pairs.append(Pair(better, len(chosen) + worse))
        extra = other_fields(row, "prompt", "chosen", "rejected")
        return Group(check_prompt(prompt), [*chosen, *rejected], tuple(pairs), extra=extra)


def _answers(row: Row, name: str) -> list[list[Message]]:
    texts = list_field(row, name)
    if not texts:
        raise Malformed(f"'{name}' has no response")
    answers = []
    for text in texts:
        answer: list[Message] = [{"role": "assistant", "content": text_field({name: text}, name)}]
        check_response(answer)
        answers.append(answer)
    return answers


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(RewardBench2)
