"""Comparisons by helpfulness and by safety (Ji et al., 2024, https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import number, other_fields, required
from lit_align.data.formats.preferences import Preferences
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind

LABELS = ("better_response_id", "safer_response_id")


@dataclass(frozen=True)
class PKUSafeRLHF(Format):
    """Columns ``prompt``, ``response_0``, ``response_1``, and the index of the better and of the safer one.

    A row whose two labels disagree is kept with a note in the ledger.

    Args:
        label: whether pairs are by ``better_response_id`` or ``safer_response_id``.

    Example:
        >>> row = {"prompt": "2 + 2?", "response_0": "5", "response_1": "4", "better_response_id": 1}
        >>> PKUSafeRLHF()(row).responses
        ['4', '5']
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS}
    )
    label: Literal["better", "safer"] = "better"

    def recognises(self, row: Row) -> bool:
        """Two responses and the label."""
        return {"prompt", "response_0", "response_1", f"{self.label}_response_id"} <= row.keys()

    def __call__(self, row: Row) -> Group:
        """A group of two responses, the better one first."""
        indices = {name: _index(row, name) for name in LABELS if row.get(name) is not None}
        better = required(indices, f"{self.label}_response_id")
        pair = {
            "prompt": required(row, "prompt"),
            "chosen": row.get(f"response_{better}"),
            "rejected": row.get(f"response_{1 - better}"),
        }
        extra = other_fields(row, "prompt", "response_0", "response_1", *LABELS)
        return Preferences()(pair)._replace(extra=extra)

    def note(self, row: Row) -> str:
        """Whether the two labels disagree."""
        if any(row.get(name) is None for name in LABELS):
            return ""
        better, safer = (_index(row, name) for name in LABELS)
        return (
            ""
            if better == safer
            else f"the better and the safer response differ; {self.label} is used"
        )


def _index(row: Row, name: str) -> int:
    index = number(required(row, name), f"'{name}'")
    if index not in (0, 1):
        raise Malformed(f"'{name}' is neither 0 nor 1")
    return int(index)


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(PKUSafeRLHF)
