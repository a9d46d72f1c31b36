"""Strings that are not natural language, such as molecules written as SMILES."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from lit_align.orca.modalities.base import (
    Examples,
    Modality,
    Task,
    check_column,
    column_targets,
    read_csv_rows,
)


@dataclass(frozen=True)
class Strings(Modality):
    """A column of a CSV file, one symbol a character; a character that is not in the training data is unknown.

    Args:
        text: the column with the strings.
        target: the column to predict.
        task: kind of that column.
    """

    kind = "symbols"
    text: str
    target: str
    task: Task = "class"

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """Code points, ``[1, length]``; white space at the ends does not count."""
        rows = read_csv_rows(path)
        targets = column_targets(path, rows, self.target, self.task)
        check_column(path, rows, self.text)
        inputs = []
        for row in rows:
            codes = [ord(character) for character in row[self.text].strip()]
            inputs.append(torch.tensor([codes], dtype=torch.long))
        return Examples(inputs, targets)
