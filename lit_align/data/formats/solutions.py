"""Several right solutions of a question (He et al., 2025, https://huggingface.co/datasets/zwhe99/DeepMath-103K)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import check_prompt, check_response, other_fields, text_field
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind, Text

NUMBERED = re.compile(r"r1_solution_(\d+)")


@dataclass(frozen=True)
class Solutions(Format):
    """Columns ``question`` and ``r1_solution_1`` to ``r1_solution_3``, each of them a response to imitate.

    Example:
        >>> Solutions()({"question": "2 + 2?", "r1_solution_1": "4", "r1_solution_2": "four"}).responses
        [[{'role': 'assistant', 'content': '4'}], [{'role': 'assistant', 'content': 'four'}]]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset({LabelKind.DEMONSTRATIONS})

    def recognises(self, row: Row) -> bool:
        """``question`` and a numbered solution."""
        return "question" in row and bool(_solutions(row))

    def __call__(self, row: Row) -> Group:
        """A group of as many responses as there are solutions."""
        prompt = check_prompt([{"role": "user", "content": text_field(row, "question")}])
        names = _solutions(row)
        if not names:
            raise Malformed("no column 'r1_solution_1'")
        responses: list[Text] = []
        for name in names:
            answer = [{"role": "assistant", "content": text_field(row, name)}]
            responses.append(check_response(answer))
        return Group(prompt, responses, extra=other_fields(row, "question", *names))


def _solutions(row: Row) -> list[str]:
    """The columns with a solution that hold something, in the order of their numbers."""
    numbers = {}
    for name, value in row.items():
        match = NUMBERED.fullmatch(name)
        if match and value:
            numbers[name] = int(match[1])
    return sorted(numbers, key=numbers.__getitem__)


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(Solutions)
