"""Public sets with an answer and its thoughts in columns of their own, by a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import check_prompt, check_response, other_fields, text_field
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind, Message

OTHER_FORMATS = {"messages", "conversations", "conversation", "chosen", "rejected"}


class ReasonedColumns(NamedTuple):
    """The columns of a set: its prompt, the thoughts, and the answer after them."""

    prompt: str
    thoughts: str
    answer: str
    source: str

    def columns_by_role(self) -> dict[str, tuple[str, ...]]:
        """The names of the columns with the prompt and the response."""
        return {"prompt": (self.prompt,), "responses": (self.thoughts, self.answer), "label": ()}


LAYOUTS = (
    ReasonedColumns(
        "question",
        "thinking_trajectories",
        "attempt",
        "https://huggingface.co/datasets/simplescaling/s1K",
    ),
    ReasonedColumns(
        "question",
        "deepseek_thinking_trajectory",
        "deepseek_attempt",
        "https://huggingface.co/datasets/simplescaling/s1K-1.1",
    ),
    ReasonedColumns(
        "problem",
        "deepseek_reasoning",
        "deepseek_solution",
        "https://huggingface.co/datasets/open-thoughts/OpenThoughts-114k",
    ),
)


@dataclass(frozen=True)
class Reasoned(Format):
    """A prompt, thoughts and an answer under the names of s1K and of OpenThoughts' metadata.

    The table ``LAYOUTS`` has the names. The chat template writes the thoughts as its model does.

    Example:
        >>> row = {"question": "2 + 2?", "thinking_trajectories": ["Two pairs."], "attempt": "4"}
        >>> Reasoned()(row).responses
        [[{'role': 'assistant', 'content': '4', 'reasoning_content': 'Two pairs.'}]]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.DEMONSTRATIONS})

    def recognises(self, row: Row) -> bool:
        """The columns of one of the sets, and none that other formats have."""
        return _layout_of(row) is not None and OTHER_FORMATS.isdisjoint(row)

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        layout = _layout_of(row) or LAYOUTS[0]
        prompt = check_prompt([{"role": "user", "content": text_field(row, layout.prompt)}])
        answer: Message = {"role": "assistant", "content": text_field(row, layout.answer)}
        answer["reasoning_content"] = _thoughts(row.get(layout.thoughts), layout.thoughts)
        extra = other_fields(row, layout.prompt, layout.thoughts, layout.answer)
        return Group(prompt, [check_response([answer])], extra=extra)


def _layout_of(row: Row) -> ReasonedColumns | None:
    for layout in LAYOUTS:
        if {layout.prompt, layout.thoughts, layout.answer} <= row.keys():
            return layout
    return None


def _thoughts(value: Any, name: str) -> str:
    """The thoughts, which s1K has as a list of one text."""
    parts = value if isinstance(value, list) else [value]
    if len(parts) != 1 or not isinstance(parts[0], str):
        raise Malformed(f"'{name}' is not one text")
    return parts[0]


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Reasoned)
