"""Public sets of comparisons whose columns have names of their own, by a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from lit_align import Register, hookimpl
from lit_align.data.formats.base import Format, Row
from lit_align.data.formats.fields import other_fields
from lit_align.data.formats.preferences import Preferences, is_dialogue
from lit_align.errors import Malformed
from lit_align.types import Group, LabelKind


class PairColumns(NamedTuple):
    """The columns of a set: its prompt, its better and its worse response."""

    prompt: str
    chosen: str
    rejected: str
    source: str

    def columns_by_role(self) -> dict[str, tuple[str, ...]]:
        """The names of the columns with the prompt and the responses, the better one first."""
        return {"prompt": (self.prompt,), "responses": (self.chosen, self.rejected), "label": ()}


LAYOUTS = (
    PairColumns(
        "question", "chosen", "rejected", "https://huggingface.co/datasets/Intel/orca_dpo_pairs"
    ),
    PairColumns(
        "input",
        "chosen",
        "rejected",
        "https://huggingface.co/datasets/argilla/distilabel-intel-orca-dpo-pairs",
    ),
    PairColumns(
        "instruction",
        "chosen_response",
        "rejected_response",
        "https://huggingface.co/datasets/argilla/ultrafeedback-binarized-preferences",
    ),
    PairColumns(
        "prompt",
        "chosen_response",
        "rejected_response",
        "https://distilabel.argilla.io/latest/",
    ),
    PairColumns(
        "question",
        "response_j",
        "response_k",
        "https://huggingface.co/datasets/lvwerra/stack-exchange-paired",
    ),
)


@dataclass(frozen=True)
class PublicPairs(Format):
    """A prompt and two responses under the names of Intel's Orca pairs, distilabel's sets and others.

    The table ``LAYOUTS`` has the names.

    Example:
        >>> PublicPairs()({"question": "2 + 2?", "chosen": "4", "rejected": "5"})[:2]
        ('2 + 2?', ['4', '5'])
    """

    label_kinds: ClassVar[frozenset[LabelKind]] = frozenset(
        {LabelKind.PAIRS, LabelKind.DEMONSTRATIONS}
    )

    def recognises(self, row: Row) -> bool:
        """The columns of one of the sets."""
        layout = _layout_of(row)
        if layout is None or is_dialogue(row[layout.chosen]):
            return False
        return {"prompt", "instruction"} & row.keys() <= {layout.prompt}

    def __call__(self, row: Row) -> Group:
        """A group of two responses."""
        layout = _layout_of(row) or LAYOUTS[0]
        pair = {name: row.get(getattr(layout, name)) for name in ("prompt", "chosen", "rejected")}
        if pair["prompt"] is None:
            raise Malformed(f"missing field '{layout.prompt}'")
        group = Preferences()(pair)
        extra = other_fields(row, layout.prompt, layout.chosen, layout.rejected)
        return group._replace(extra=extra)

    def note(self, row: Row) -> str:
        """As for `Preferences`."""
        return Preferences().note(row)


def _layout_of(row: Row) -> PairColumns | None:
    """The set with these columns; the first one, where the prompt could be in several."""
    for layout in LAYOUTS:
        if {layout.prompt, layout.chosen, layout.rejected} <= row.keys():
            return layout
    return None


@hookimpl
def register_formats(register: Register) -> None:
    """Register the format."""
    register(PublicPairs)
