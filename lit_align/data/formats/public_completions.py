"""Public sets with a prompt and one response under names of their own, by a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.conversations import demonstration_kinds
from lit_align.data.formats.fields import (
    binary_label,
    check_prompt,
    check_response,
    check_same_type,
    other_fields,
    text_field,
    text_or_messages,
)
from lit_align.data.formats.rated import HELPSTEER
from lit_align.types import Group, LabelKind

BLOCKERS = {
    "messages",
    "conversations",
    "chosen",
    "rejected",
    "completion",
    "responses",
    *HELPSTEER,
}


class CompletionColumns(NamedTuple):
    """The columns of a set: its prompt, what is added to the prompt on a line of its own, and the response."""

    prompt: str
    response: str
    details: str = ""
    source: str = ""

    def columns_by_role(self) -> dict[str, tuple[str, ...]]:
        """The names of the columns with the prompt, the response and the label."""
        prompt = tuple(filter(None, (self.prompt, self.details)))
        return {"prompt": prompt, "responses": (self.response,), "label": ()}


LAYOUTS = (
    CompletionColumns(
        "instruction",
        "response",
        "context",
        "https://huggingface.co/datasets/databricks/databricks-dolly-15k",
    ),
    CompletionColumns(
        "question", "response", "", "https://huggingface.co/datasets/Open-Orca/OpenOrca"
    ),
    CompletionColumns("question", "answer", "", "https://huggingface.co/datasets/openai/gsm8k"),
    CompletionColumns(
        "query", "response", "", "https://huggingface.co/datasets/meta-math/MetaMathQA"
    ),
    CompletionColumns(
        "query",
        "answer",
        "",
        "https://huggingface.co/datasets/m-a-p/CodeFeedback-Filtered-Instruction",
    ),
    CompletionColumns(
        "problem", "solution", "", "https://huggingface.co/datasets/hendrycks/competition_math"
    ),
    CompletionColumns(
        "prompt", "response", "", "https://huggingface.co/datasets/PKU-Alignment/BeaverTails"
    ),
    CompletionColumns("instruction", "generation", "", "https://distilabel.argilla.io/latest/"),
    CompletionColumns(
        "input", "output", "", "https://huggingface.co/datasets/nvidia/OpenCodeInstruct"
    ),
)


@dataclass(frozen=True)
class PublicCompletions(Format):
    r"""A prompt and a response under the names of Dolly, OpenOrca, MetaMathQA and others; ``label`` is optional.

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
        return BLOCKERS.isdisjoint(row) and len(_layouts_of(row)) == 1

    def row_label_kinds(self, row: Row) -> frozenset[LabelKind]:
        """Binary labels where there is a ``label``."""
        return demonstration_kinds(row, "label")

    def __call__(self, row: Row) -> Group:
        """A group of one response."""
        layout = (_layouts_of(row) or LAYOUTS[:1])[0]
        prompt = text_or_messages(row, layout.prompt)
        response = text_or_messages(row, layout.response)
        check_same_type(prompt, response, layout.prompt, layout.response)
        read = [layout.prompt, layout.response, "label"]
        if isinstance(prompt, str) and layout.details in row:
            details = text_field(row, layout.details)
            prompt = f"{prompt}\n{details}" if details else prompt
            read.append(layout.details)
        return Group(
            check_prompt(prompt),
            [check_response(response)],
            desirable=binary_label(row, "label"),
            extra=other_fields(row, *read),
        )


def _layouts_of(row: Row) -> list[CompletionColumns]:
    matches = []
    for layout in LAYOUTS:
        has_instruction = "instruction" in row and layout.prompt != "instruction"
        if layout.prompt in row and layout.response in row and not has_instruction:
            matches.append(layout)
    return matches


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(PublicCompletions)
