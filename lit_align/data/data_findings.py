"""What is worth knowing about data before a model is trained on them: duplicates, leaks, and labels without content."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from lit_align.data.cell_text import contents
from lit_align.data.digest import label_fields
from lit_align.types import Group, Text

MIN_PAIRS = 20
"""Comparisons from which it is said that lengths predict the label: by chance 95 % of 20 agree once in 50,000."""

LENGTH_SHARE = 0.95
"""Share of comparisons that length alone has to get right."""

COUNTS = ("duplicates", "desirable", "undesirable", "longer", "shorter", "pairs")
DIGEST_BYTES = 12


@dataclass
class DataFindings:
    """Counts over the groups of a data set, and the sentences that follow from them.

    Args:
        duplicates: rows that equal an earlier row of the same file in prompt, responses, labels and annotator.
        prompts: digest of each prompt.
        desirable: responses with the label desirable.
        undesirable: responses with the label undesirable.
        longer: comparisons whose better response is longer.
        shorter: comparisons whose better response is shorter.
        pairs: comparisons.
    """

    duplicates: int = 0
    prompts: set[bytes] = field(default_factory=set)
    desirable: int = 0
    undesirable: int = 0
    longer: int = 0
    shorter: int = 0
    pairs: int = 0
    _rows: set[bytes] = field(default_factory=set)

    def add(self, path: str, group: Group) -> None:
        """Count a group of the file ``path``."""
        self.prompts.add(digest(group.prompt))
        rendered = (group.prompt, group.responses, group.tools, group.template_kwargs)
        row = digest([path, rendered, label_fields(group)])
        self.duplicates += row in self._rows
        self._rows.add(row)
        self.desirable += sum(group.desirable)
        self.undesirable += len(group.desirable) - sum(group.desirable)
        lengths = [_length(response) for response in group.responses]
        for pair in group.pairs:
            self.pairs += 1
            self.longer += lengths[pair.better] > lengths[pair.worse]
            self.shorter += lengths[pair.better] < lengths[pair.worse]

    def to_state(self) -> dict[str, Any]:
        """Counts, and the digests of prompts in one text, for `from_state`; digests of rows are no longer needed."""
        state = {name: getattr(self, name) for name in COUNTS}
        return {**state, "prompts": b"".join(sorted(self.prompts)).hex()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> DataFindings:
        """The findings that `to_state` described."""
        counts = {name: state[name] for name in COUNTS}
        content = bytes.fromhex(state["prompts"])
        starts = range(0, len(content), DIGEST_BYTES)
        return cls(**counts, prompts={content[start : start + DIGEST_BYTES] for start in starts})

    def merge(self, other: DataFindings) -> None:
        """Add the counts over groups that follow these in the same files."""
        self.duplicates += other.duplicates + len(self._rows & other._rows)
        self.prompts |= other.prompts
        self._rows |= other._rows
        for name in COUNTS[1:]:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def sentences(self) -> list[str]:
        """What is to be said of the data."""
        sentences = []
        if self.duplicates:
            sentences.append(
                f"{_count(self.duplicates, 'row is', 'rows are')} exact duplicates of an earlier row of the same file"
            )
        if (self.desirable or self.undesirable) and not (self.desirable and self.undesirable):
            label = "desirable" if self.desirable else "undesirable"
            sentences.append(
                f"every response is {label}: there is nothing to tell apart, so add responses of the other kind"
            )
        for kind, wins in (("longer", self.longer), ("shorter", self.shorter)):
            if self.pairs >= MIN_PAIRS and wins >= LENGTH_SHARE * self.pairs:
                sentences.append(
                    f"the {kind} response is the better one in {wins / self.pairs:.0%} of {self.pairs:,} comparisons: "
                    "length alone predicts the label"
                )
        return sentences

    def overlap(self, other: DataFindings, name: str) -> list[str]:
        """What is to be said of prompts that are in ``other`` too, which is called ``name``."""
        shared = len(self.prompts & other.prompts)
        if not shared:
            return []
        return [
            f"{shared:,} of {_count(len(self.prompts), 'prompt is', 'prompts are')} in {name} too: figures on them do "
            "not show how the model does on unseen prompts"
        ]


def digest(value: Any) -> bytes:
    """A short digest of a value that JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _length(response: Text) -> int:
    return sum(map(len, contents(response)))


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"
