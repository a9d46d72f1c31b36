"""Instructions with an input and an output (Taori et al., 2023, https://github.com/tatsu-lab/stanford_alpaca)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.conversations import demonstration_group, demonstration_kinds
from lit_align.data.formats.fields import binary_label, other_fields, text_field
from lit_align.data.formats.preferences import pair_group
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind, Message

TURNS = {"messages", "conversations"}
PROMPT_COLUMNS = ("instruction", "input", "system", "history")


@dataclass(frozen=True)
class Alpaca(Format):
    r"""Columns ``instruction``, ``input`` (may be empty or missing) and ``output``, or ``chosen`` and ``rejected``.

    Instruction and input make the user's turn, one line after the other. ``system``, ``history`` (pairs of earlier
    questions and answers) and ``kto_tag`` (a binary label) are optional.

    Example:
        >>> Alpaca()({"instruction": "Translate.", "input": "chat", "output": "cat"}).prompt
        [{'role': 'user', 'content': 'Translate.\nchat'}]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS, LabelKind.DESIRABLE}
    )

    def recognises(self, row: Row) -> bool:
        """``instruction`` with one answer or two, and no turns."""
        if not row.keys().isdisjoint(TURNS):
            return False
        is_text = isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str)
        return "instruction" in row and ("output" in row or is_text)

    def row_label_kinds(self, row: Row) -> frozenset[LabelKind]:
        """Pairs where two answers are compared, and binary labels where there is a ``kto_tag``."""
        if row.get("chosen"):
            return frozenset({LabelKind.PAIRS, LabelKind.DEMONSTRATIONS})
        return demonstration_kinds(row, "kto_tag")

    def __call__(self, row: Row) -> Group:
        """A group of one or two responses."""
        question = text_field(row, "instruction")
        details = text_field(row, "input") if row.get("input") is not None else ""
        if details:
            question = f"{question}\n{details}"
        prompt = [*_earlier_turns(row), {"role": "user", "content": question}]
        if row.get("chosen"):
            extra = other_fields(row, *PROMPT_COLUMNS, "chosen", "rejected")
            chosen = [_answer(text_field(row, "chosen"))]
            rejected = [_answer(text_field(row, "rejected"))]
            return pair_group(prompt, chosen, rejected, extra)
        extra = other_fields(row, *PROMPT_COLUMNS, "output", "kto_tag")
        desirable = binary_label(row, "kto_tag")
        answer = _answer(text_field(row, "output"))
        return demonstration_group([*prompt, answer], desirable, extra)


def _answer(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _earlier_turns(row: Row) -> list[Message]:
    """System prompt and earlier turns."""
    turns: list[Message] = []
    if row.get("system"):
        turns.append({"role": "system", "content": text_field(row, "system")})
    history = row.get("history") or []
    if not isinstance(history, list) or not all(map(_is_exchange, history)):
        raise Malformed("'history' is not pairs of question and answer")
    for question, answer in history:
        turns += [{"role": "user", "content": question}, _answer(answer)]
    return turns


def _is_exchange(entry: Any) -> bool:
    return (
        isinstance(entry, list) and len(entry) == 2 and all(isinstance(text, str) for text in entry)
    )


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Alpaca)
