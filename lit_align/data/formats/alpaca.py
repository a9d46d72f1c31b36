"""Instructions with an input and an output (Taori et al., 2023, https://github.com/tatsu-lab/stanford_alpaca)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.conversations import demonstrated
from lit_align.data.formats.fields import flag, text, unused
from lit_align.data.formats.preferences import compared
from lit_align.errors import Malformed
from lit_align.types import Group, Message

READ = ("instruction", "input", "output", "chosen", "rejected", "system", "history", "kto_tag")


@dataclass(frozen=True)
class Alpaca(Format):
    r"""Columns ``instruction``, ``input`` (may be empty or missing) and ``output``, or ``chosen`` and ``rejected``.

    Instruction and input make the user's turn, one line after the other. ``system``, ``history`` (pairs of earlier
    questions and answers) and ``kto_tag`` (a thumb) are read where they stand.

    Example:
        >>> Alpaca()({"instruction": "Translate.", "input": "chat", "output": "cat"}).prompt
        [{'role': 'user', 'content': 'Translate.\nchat'}]
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset({"pairs", "demonstrations", "desirable"})

    def recognises(self, row: Row) -> bool:
        """``instruction`` with an answer or two."""
        return "instruction" in row and ("output" in row or {"chosen", "rejected"} <= row.keys())

    def __call__(self, row: Row) -> Group:
        """The row as a group of one or two."""
        instruction = text(row, "instruction")
        given = text(row, "input") if row.get("input") is not None else ""
        prompt = _earlier(row)
        prompt.append(
            {"role": "user", "content": f"{instruction}\n{given}" if given else instruction}
        )
        extra = unused(row, *READ)
        if "chosen" in row:
            return compared(
                prompt, [_answer(text(row, "chosen"))], [_answer(text(row, "rejected"))], extra
            )
        desirable = (flag(row, "kto_tag"),) if "kto_tag" in row else ()
        return demonstrated([*prompt, _answer(text(row, "output"))], desirable, extra)


def _answer(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _earlier(row: Row) -> list[Message]:
    """System prompt and earlier turns."""
    turns: list[Message] = (
        [{"role": "system", "content": text(row, "system")}] if row.get("system") else []
    )
    history = row.get("history") or []
    if not isinstance(history, list) or not all(map(_is_exchange, history)):
        raise Malformed("'history' is not pairs of question and answer")
    for question, answer in history:
        turns += [{"role": "user", "content": question}, _answer(answer)]
    return turns


def _is_exchange(entry: Any) -> bool:
    return (
        isinstance(entry, list) and len(entry) == 2 and all(isinstance(side, str) for side in entry)
    )


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(Alpaca)
