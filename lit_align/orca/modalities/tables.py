"""Tables: CSV files with a header, and NumPy archives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from lit_align.errors import DataError
from lit_align.orca.modalities.base import (
    Examples,
    Modality,
    Task,
    column_targets,
    load_arrays,
    parse_number,
    read_csv_rows,
)


@dataclass(frozen=True)
class Tables(Modality):
    """A number in each column: ``.csv``, where an empty cell is missing, or ``.npz`` (``[n, features]``).

    Args:
        target: the column of a CSV file to predict.
        task: kind of that column.
        ignore: columns that are neither features nor target.
    """

    kind = "tabular"
    target: str = "target"
    task: Task = "class"
    ignore: tuple[str, ...] = ()

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """Every other column is a feature."""
        if path.endswith(".npz"):
            x, targets = load_arrays(path, split)
            if x.ndim != 2:
                raise DataError(f"the table in {path} is of rank {x.ndim}; give [n, features]")
            return Examples(list(torch.from_numpy(x.astype("float32"))), targets)
        rows = read_csv_rows(path)
        targets = column_targets(path, rows, self.target, self.task)
        excluded = (self.target, *self.ignore)
        features = [column for column in rows[0] if column not in excluded]
        inputs = []
        for row in rows:
            values = [parse_number(path, column, row[column]) for column in features]
            inputs.append(torch.tensor(values))
        return Examples(inputs, targets)
