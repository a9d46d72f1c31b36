"""RewardBench's comparisons (Lambert et al., 2024, https://huggingface.co/datasets/allenai/reward-bench)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import text, unused
from lit_align.data.formats.preferences import compared
from lit_align.types import Group


@dataclass(frozen=True)
class RewardBench(Format):
    """Columns ``prompt``, ``chosen`` and ``rejected``, each one turn as text; ``subset`` says where a row comes from.

    Example:
        >>> RewardBench()({"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "subset": "math-prm"}).prompt
        [{'role': 'user', 'content': '2 + 2?'}]
    """

    label_kinds: ClassVar[frozenset[str]] = frozenset({"pairs", "demonstrations"})

    def recognises(self, row: Row) -> bool:
        """The columns of the published set, its ``chosen_model`` and ``rejected_model`` among them."""
        return row.keys() >= {
            "prompt",
            "chosen",
            "rejected",
            "chosen_model",
            "rejected_model",
            "subset",
        }

    def __call__(self, row: Row) -> Group:
        """The row as a group of two."""
        prompt = [{"role": "user", "content": text(row, "prompt")}]
        chosen, rejected = (
            [{"role": "assistant", "content": text(row, side)}] for side in ("chosen", "rejected")
        )
        return compared(prompt, chosen, rejected, unused(row, "prompt", "chosen", "rejected"))


@hookimpl
def register_formats(register: Register) -> None:
    """Offer the layout."""
    register(RewardBench)
