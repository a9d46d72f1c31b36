"""Tables: CSV files with a header, and NumPy archives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from lit_align.errors import DataError
from lit_align.orca.modalities.base import Examples, Modality, arrays, column, number, rows_of


@dataclass(frozen=True)
class Tables(Modality):
    """A number in each column: ``.csv``, where an empty cell is missing, or ``.npz`` (``[n, features]``).

    Args:
        target: the column of a CSV file that is to be learned.
        task: what that column is.
        ignore: columns that are neither.
    """

    kind = "tabular"
    target: str = "target"
    task: Literal["class", "regression"] = "class"
    ignore: tuple[str, ...] = ()

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """Every other column is a feature."""
        if path.endswith(".npz"):
            x, targets = arrays(path, split)
            if x.ndim != 2:
                raise DataError(f"the table in {path} is of rank {x.ndim}; give [n, features]")
            return Examples(list(torch.from_numpy(x.astype("float32"))), targets)
        rows = rows_of(path)
        targets = column(path, rows, self.target, self.task)
        names = [name for name in rows[0] if name != self.target and name not in self.ignore]
        return Examples(
            [torch.tensor([number(path, name, row[name]) for name in names]) for row in rows],
            targets,
        )
