"""Public sets with a prompt and one response under names of their own, by a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from lit_align import Register, hookimpl
from lit_align.data.formats.base import HUB, Format, Row
from lit_align.data.formats.conversations import demonstration_kinds
from lit_align.data.formats.fields import (
    BOOLEANS,
    binary_label,
    check_prompt,
    check_response,
    check_same_type,
    other_fields,
    text_field,
    text_or_messages,
)
from lit_align.data.formats.rated import HELPSTEER
from lit_align.data.formats.reasoned import Reasoned
from lit_align.data.formats.solutions import Solutions
from lit_align.errors import SetAside
from lit_align.types import Group, LabelKind

BLOCKERS = {
    "messages",
    "conversations",
    "chosen",
    "rejected",
    "completion",
    "responses",
    "generations",
    *HELPSTEER,
}


class CompletionColumns(NamedTuple):
    """The columns of a set.

    Args:
        prompt: the column with the prompt.
        response: the column with the response.
        source: address of the set.
        details: the column that is added to the prompt on a line of its own.
        label: the column that says whether the response is desirable.
    """

    prompt: str
    response: str
    source: str
    details: str = ""
    label: str = "label"

    def columns_by_role(self) -> dict[str, tuple[str, ...]]:
        """The names of the columns with the prompt, the response and the label."""
        prompt = tuple(filter(None, (self.prompt, self.details)))
        label = () if self.label in ("", "label") else (self.label,)
        return {"prompt": prompt, "responses": (self.response,), "label": label}


LAYOUTS = (
    CompletionColumns(
        "instruction", "response", HUB + "databricks/databricks-dolly-15k", "context"
    ),
    CompletionColumns("question", "response", HUB + "Open-Orca/OpenOrca"),
    CompletionColumns("question", "answer", HUB + "openai/gsm8k"),
    CompletionColumns("query", "response", HUB + "meta-math/MetaMathQA"),
    CompletionColumns("query", "answer", HUB + "m-a-p/CodeFeedback-Filtered-Instruction"),
    CompletionColumns("problem", "solution", HUB + "AI-MO/NuminaMath-1.5"),
    CompletionColumns("problem", "generated_solution", HUB + "nvidia/OpenMathInstruct-2"),
    CompletionColumns("prompt", "response", HUB + "PKU-Alignment/BeaverTails", label="is_safe"),
    CompletionColumns("instruction", "generation", "https://distilabel.argilla.io/latest/"),
    CompletionColumns("input", "output", HUB + "nvidia/OpenCodeInstruct"),
    CompletionColumns("inputs", "targets", HUB + "CohereForAI/aya_dataset"),
    CompletionColumns("prompt", "label", HUB + "CarperAI/openai_summarize_tldr", label=""),
)


@dataclass(frozen=True)
class PublicCompletions(Format):
    r"""A prompt and a response under the names of Dolly, OpenOrca, MetaMathQA and others; a binary label is optional.

    The table ``LAYOUTS`` has the names. Dolly's ``context`` follows its ``instruction`` on a line of its own.

    Example:
        >>> PublicCompletions()({"instruction": "Who is it?", "context": "I am Ann.", "response": "Ann."})[:2]
        ('Who is it?\nI am Ann.', ['Ann.'])
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.DEMONSTRATIONS, LabelKind.DESIRABLE}
    )

    def recognises(self, row: Row) -> bool:
        """The columns of one of the sets, and none that other formats have."""
        if Solutions().recognises(row) or Reasoned().recognises(row):
            return False  # what they do not read is the right answer
        return BLOCKERS.isdisjoint(row) and len(_layouts_of(row)) == 1

    def row_label_kinds(self, row: Row) -> frozenset[LabelKind]:
        """Binary labels where there is a column with one."""
        return demonstration_kinds(row, _label_of(row, _layout_of(row)))

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        layout = _layout_of(row)
        prompt = text_or_messages(row, layout.prompt)
        response = text_or_messages(row, layout.response)
        if layout.response == "label" and isinstance(response, str) and len(response.split()) == 1:
            raise SetAside(
                "'label' is a single word, which may be a class or the right answer; if it is a response to imitate, "
                "set data.columns: {completion: label}"
            )
        label = _label_of(row, layout)
        read = [layout.prompt, layout.response, label]
        if isinstance(prompt, str) and row.get(layout.details) is not None:
            details = text_field(row, layout.details)
            prompt = f"{prompt}\n{details}" if details else prompt
            read.append(layout.details)
        if isinstance(prompt, list) and isinstance(response, str):
            response = [{"role": "assistant", "content": response}]
        check_same_type(prompt, response, layout.prompt, layout.response)
        return Group(
            check_prompt(prompt),
            [check_response(response)],
            desirable=binary_label(row, label),
            extra=other_fields(row, *read),
        )


def _layouts_of(row: Row) -> list[CompletionColumns]:
    matches = []
    for layout in LAYOUTS:
        has_instruction = "instruction" in row and layout.prompt != "instruction"
        is_other = layout.response == "label" and len(row) > len(("prompt", "label"))
        has_texts = _is_text(row.get(layout.prompt)) and _is_text(row.get(layout.response))
        if has_texts and not has_instruction and not is_other:
            matches.append(layout)
    return matches


def _layout_of(row: Row) -> CompletionColumns:
    """The set with these columns; of a row that lacks one, the set with most of them."""
    matches = _layouts_of(row)
    if matches:
        return matches[0]
    return max(LAYOUTS, key=lambda layout: (layout.prompt in row) + (layout.response in row))


def _is_text(value: Any) -> bool:
    """Whether a column holds a text or turns; a word for true or false is a label."""
    if isinstance(value, str):
        return value.strip().lower() not in BOOLEANS
    return isinstance(value, list)


def _label_of(row: Row, layout: CompletionColumns) -> str:
    """The column with the binary label; empty if there is none."""
    for name in (layout.label, "label"):
        if name in row and name != layout.response:
            return name
    return ""


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(PublicCompletions)
