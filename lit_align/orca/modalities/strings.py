"""Strings that are no language, such as molecules written as SMILES."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from lit_align.errors import DataError
from lit_align.orca.modalities.base import Examples, Modality, column, rows_of


@dataclass(frozen=True)
class Strings(Modality):
    """A column of a CSV file, one symbol a character; a character that training lacks is unknown.

    Args:
        text: the column with the strings.
        target: the column that is to be learned.
        task: what that column is.
    """

    kind = "symbols"
    text: str
    target: str
    task: Literal["class", "regression"] = "class"

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """Code points, ``[1, length]``; blanks at the ends do not count."""
        rows = rows_of(path)
        targets = column(path, rows, self.target, self.task)
        if self.text not in rows[0]:
            raise DataError(
                f"{path} has no column {self.text!r}, only {', '.join(rows[0])}; name one"
            )
        texts = [row[self.text].strip() for row in rows]
        return Examples(
            [torch.tensor([[ord(c) for c in text]], dtype=torch.long) for text in texts], targets
        )
