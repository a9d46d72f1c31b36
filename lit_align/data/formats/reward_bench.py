"""RewardBench's comparisons (Lambert et al., 2024, https://huggingface.co/datasets/allenai/reward-bench)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import other_fields, text_field
from lit_align.data.formats.preferences import pair_group
from lit_align.types import Group, LabelKind, Message

COLUMNS = {"prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset"}


@dataclass(frozen=True)
class RewardBench(Format):
    """Columns ``prompt``, ``chosen`` and ``rejected``, each one turn as text; ``subset`` says where a row comes from.

    Example:
        >>> RewardBench()({"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "subset": "math-prm"}).prompt
        [{'role': 'user', 'content': '2 + 2?'}]
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """The columns of the published set, including ``chosen_model`` and ``rejected_model``."""
        return row.keys() >= COLUMNS

    def __call__(self, row: Row) -> Group:
        """A group of two responses."""
        prompt = [{"role": "user", "content": text_field(row, "prompt")}]
        chosen, rejected = _answer(row, "chosen"), _answer(row, "rejected")
        extra = other_fields(row, "prompt", "chosen", "rejected")
        return pair_group(prompt, chosen, rejected, extra)


def _answer(row: Row, name: str) -> list[Message]:
    return [{"role": "assistant", "content": text_field(row, name)}]


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(RewardBench)
