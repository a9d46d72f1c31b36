"""Comparisons of whole dialogues, as in HH-RLHF (Bai et al., 2022, https://arxiv.org/abs/2204.05862)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import text, unused
from lit_align.data.formats.preferences import compared, split
from lit_align.errors import Malformed
from lit_align.types import Group, Message

TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class HH(Format):
    r"""Columns ``chosen`` and ``rejected``, each a dialogue ``\n\nHuman: ...\n\nAssistant: ...``.

    The turns that both begin with are the prompt.

    Example:
        >>> asked = "\n\nHuman: 2 + 2?\n\nAssistant:"
        >>> HH()({"chosen": f"{asked} 4", "rejected": f"{asked} 5"}).prompt
        [{'role': 'user', 'content': '2 + 2?'}]
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset({"pairs", "demonstrations"})

    def recognises(self, row: Row) -> bool:
        """Two dialogues and no prompt."""
        sides = row.get("chosen"), row.get("rejected")
        return "prompt" not in row and all(
            isinstance(s, str) and s.lstrip().startswith("Human:") for s in sides
        )

    def __call__(self, row: Row) -> Group:
        """The row as a group of two."""
        return compared(
            *split(_turns(row, "chosen"), _turns(row, "rejected")),
            unused(row, "chosen", "rejected"),
        )


def _turns(row: Row, name: str) -> list[Message]:
    """The dialogue's turns; the parts of a split alternate between speakers and what they say."""
    before, *parts = TURN.split(text(row, name).strip())
    if before or not parts:
        raise Malformed(f"'{name}' is not a dialogue of Human and Assistant")
    turns = [
        {"role": ROLES[who], "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    if turns[-1]["role"] != "assistant":
        raise Malformed(f"'{name}' does not end with the Assistant")
    if not turns[-1]["content"]:
        raise Malformed("empty response")
    return turns


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(HH)
