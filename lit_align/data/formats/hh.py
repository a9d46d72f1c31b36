"""Comparisons of whole dialogues, as in HH-RLHF (Bai et al., 2022, https://arxiv.org/abs/2204.05862)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import other_fields, text_field
from lit_align.data.formats.preferences import is_dialogue, pair_group, split_prompt
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind, Message

TURN = re.compile(r"(?:^|\n\n)(Human|Assistant|(?<![\s\S])System):")  # a system text only begins
ROLES = {"Human": "user", "Assistant": "assistant", "System": "system"}


@dataclass(frozen=True)
class HH(Format):
    r"""Columns ``chosen`` and ``rejected``, each a dialogue ``\n\nHuman: ...\n\nAssistant: ...``.

    The turns that both begin with are the prompt.

    Example:
        >>> prompt = "\n\nHuman: 2 + 2?\n\nAssistant:"
        >>> HH()({"chosen": f"{prompt} 4", "rejected": f"{prompt} 5"}).prompt
        [{'role': 'user', 'content': '2 + 2?'}]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """Two dialogues and no prompt."""
        if "prompt" in row:
            return False
        return is_dialogue(row.get("chosen")) and is_dialogue(row.get("rejected"))

    def __call__(self, row: Row) -> Group:
        """A group of two responses."""
        chosen, rejected = _parse_dialogue(row, "chosen"), _parse_dialogue(row, "rejected")
        prompt, chosen_end, rejected_end = split_prompt(chosen, rejected)
        return pair_group(prompt, chosen_end, rejected_end, other_fields(row, "chosen", "rejected"))


def _parse_dialogue(row: Row, name: str) -> list[Message]:
    """The dialogue's turns."""
    before, *parts = TURN.split(text_field(row, name).strip())
    if before or not parts:
        raise Malformed(f"'{name}' is not a dialogue of Human and Assistant")
    turns = []
    for speaker, content in zip(parts[::2], parts[1::2], strict=True):  # the parts alternate
        turns.append({"role": ROLES[speaker], "content": content.strip()})
    if turns[-1]["role"] != "assistant":
        raise Malformed(f"'{name}' does not end with the Assistant")
    if not turns[-1]["content"]:
        raise Malformed("empty response")
    return turns


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(HH)
