"""Function calls (Liu et al., 2024, https://huggingface.co/datasets/Salesforce/xlam-function-calling-60k)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import (
    check_prompt,
    other_fields,
    required,
    text_field,
)
from lit_align.data.formats.shared_columns import parse_text
from lit_align.errors import Malformed, SetAside
from lit_align.types import Group, LabelKind, Message


@dataclass(frozen=True)
class XLAM(Format):
    """Columns ``query``, ``answers`` (calls with ``name`` and ``arguments``) and ``tools``, the last two as text.

    The response is one turn with all the calls, which the chat template has to render.

    Example:
        >>> row = {"query": "Add.", "answers": '[{"name": "add", "arguments": {}}]', "tools": '[{"name": "add"}]'}
        >>> XLAM().recognises(row)
        True
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.DEMONSTRATIONS})

    def recognises(self, row: Row) -> bool:
        """The three columns."""
        return {"query", "answers", "tools"} <= row.keys()

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        prompt = check_prompt([{"role": "user", "content": text_field(row, "query")}])
        answer: Message = {"role": "assistant", "content": "", "tool_calls": _calls(row)}
        return Group(prompt, [[answer]], extra=other_fields(row, "query", "answers"))


def _calls(row: Row) -> list[dict[str, Any]]:
    """The calls in the form of OpenAI's API."""
    value = parse_text(required(row, "answers"), "answers")
    if not isinstance(value, list):
        raise Malformed("'answers' is not a list of calls")
    if not value:
        raise SetAside("a question without a call")
    return [_call(entry) for entry in value]


def _call(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise Malformed("a call has no 'name'")
    function = {"name": entry["name"], "arguments": entry.get("arguments") or {}}
    return {"type": "function", "function": function}


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(XLAM)
