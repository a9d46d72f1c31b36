"""Examples of any modality, their specification, their collation into batches, and how files are read."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import DataError
from lit_align.package_files import resolve_package_path

Task = Literal["class", "regression"]


@dataclass(frozen=True)
class Examples:
    """The examples of a file.

    Args:
        inputs: one tensor an example, channels first: a series ``[channels, length]``, an image ``[channels, height,
            width]``, a row of a table ``[features]``, symbols ``[1, length]``. NaN is a missing value; integers are
            categories, of which only those in the training data have a number of their own.
        targets: what is predicted, by its type: names are classes, booleans ``[n, labels]`` are labels that do not
            exclude each other, numbers ``[n, outputs]`` are a regression, ``[n, channels, ...]`` a dense one.
        groups: examples of one group (a speaker, a patient) stay on one side of a split; None makes each distinct
            input a group of its own.
    """

    inputs: list[Tensor]
    targets: list[str] | Tensor
    groups: list[str] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Sequence[int]) -> Examples:
        """The examples at ``rows``, in that order."""
        inputs = [self.inputs[i] for i in rows]
        groups = None if self.groups is None else [self.groups[i] for i in rows]
        if isinstance(self.targets, list):
            return Examples(inputs, [self.targets[i] for i in rows], groups)
        return Examples(inputs, self.targets[list(rows)], groups)


@dataclass(frozen=True)
class InputSpec:
    """What an embedder needs to know about the inputs.

    Args:
        kind: ``series``, ``image``, ``tabular``, ``symbols``, or a plugin's own.
        channels: numbers at each position; of a table, its features.
        shape: largest size of each other dimension; empty for a table.
        ragged: whether sizes differ.
        missing: whether values are missing.
        categories: number of categories, 0 (any other) included; 0 for inputs that are numbers.
    """

    kind: str
    channels: int
    shape: tuple[int, ...]
    ragged: bool = False
    missing: bool = False
    categories: int = 0

    @classmethod
    def from_inputs(cls, kind: str, inputs: Sequence[Tensor]) -> InputSpec:
        """The specification of ``inputs``.

        Example:
            >>> InputSpec.from_inputs("series", [torch.zeros(2, 7), torch.zeros(2, 5)])
            InputSpec(kind='series', channels=2, shape=(7,), ragged=True, missing=False, categories=0)
        """
        shapes = {tuple(x.shape[1:]) for x in inputs}
        shape = _largest_sizes(shapes)
        missing, categories = False, 0
        if inputs[0].is_floating_point():
            missing = any(bool(x.isnan().any()) for x in inputs)
        else:
            categories = 1 + max(int(x.max()) for x in inputs)
        return cls(
            kind=kind,
            channels=len(inputs[0]),
            shape=shape,
            ragged=len(shapes) > 1,
            missing=missing,
            categories=categories,
        )


@dataclass(frozen=True)
class TargetSpec:
    """What a head needs to know about the targets.

    Args:
        kind: of the targets.
        outputs: number of classes, labels, numbers or channels.
        shape: of a dense target, without its channels.
        classes: names of the classes, in order.
        mean: of each number or channel in training; predictions start there.
        std: standard deviation of each, in which losses are measured.
    """

    kind: Literal["class", "multilabel", "regression", "dense"]
    outputs: int
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class LabelledBatch(NamedTuple):
    """Padded inputs with their targets.

    Args:
        x: inputs ``[n, channels, ...]``, zero where ``mask`` is False.
        mask: of the same shape; False at padding and at missing values.
        y: targets: classes ``[n]``, labels ``[n, labels]`` as 0 and 1, or numbers ``[n, outputs]`` or
            ``[n, channels, ...]``.
    """

    x: Tensor
    mask: Tensor
    y: Tensor


def collate(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack inputs, padded at their ends, and the mask of their values.

    Example:
        >>> x, mask = collate([torch.tensor([[1.0, torch.nan, 3.0]]), torch.tensor([[4.0]])])
        >>> x.tolist(), mask.int().tolist()
        ([[[1.0, 0.0, 3.0]], [[4.0, 0.0, 0.0]]], [[[1, 0, 1]], [[1, 0, 0]]])
    """
    shape = _largest_sizes(x.shape for x in inputs)
    x = inputs[0].new_zeros(len(inputs), *shape)
    mask = torch.zeros(len(inputs), *shape, dtype=torch.bool)
    for row, values in enumerate(inputs):
        position = tuple(slice(size) for size in values.shape)
        mask[row][position] = ~values.isnan()
        if values.is_floating_point():
            values = values.nan_to_num(0.0)
        x[row][position] = values
    return x, mask


def _largest_sizes(shapes: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """The largest size of each dimension."""
    return tuple(max(sizes) for sizes in zip(*shapes, strict=True))


class Modality(ABC):
    """Reader of one kind of files: a frozen dataclass whose fields are its settings.

    Class attributes:
        kind: of the inputs, as embedders name it.
        as_is: True if numbers are not to be standardised and integers not to be numbered anew.
    """

    kind: ClassVar[str]
    as_is: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """All examples in the file; ``split`` chooses where a file holds both.

        Raises:
            DataError: naming the file and what is wrong with it.
        """


def resolve_path(path: str) -> Path:
    """The file or folder at ``path``, which may be in an installed package: ``package:name/file``.

    Raises:
        DataError: if there is none.
    """
    path = resolve_package_path(path, DataError)
    file = Path(path).expanduser()
    if not file.exists():
        raise DataError(f"there is no file {path}; check the path")
    return file


def load_arrays(path: str, split: str) -> tuple[Any, list[str] | Tensor]:
    """Inputs and targets of a NumPy archive: ``x`` and ``y``, or ``x_train`` and ``y_train`` (``test``).

    Raises:
        DataError: if an array is missing or of the wrong type.
    """
    import numpy as np

    with np.load(resolve_path(path), allow_pickle=False) as archive:
        suffix = "" if "x" in archive else f"_{split}"
        names = [f"x{suffix}", f"y{suffix}"]
        missing = [name for name in names if name not in archive]
        if missing:
            raise DataError(
                f"{path} has no {' and no '.join(missing)}, only {', '.join(archive)}; rename the arrays"
            )
        x, y = (archive[name] for name in names)
    if len(x) != len(y):
        raise DataError(f"{path} has {len(x)} inputs and {len(y)} targets; each input needs one")
    if y.ndim == 1 and y.dtype.kind in "iuUS":
        return x, [str(name) for name in y]
    if y.dtype.kind not in "bf":
        raise DataError(
            f"the targets in {path} are {y.dtype} {list(y.shape)}; classes are one integer or name each"
        )
    if y.dtype.kind == "f":
        y = y.astype("float32")
    if y.ndim < 3:
        y = y.reshape(len(y), -1)
    return x, torch.from_numpy(y)


def read_csv_rows(path: str) -> list[dict[str, str]]:
    """Rows of a CSV file with a header."""
    with resolve_path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column_targets(
    path: str, rows: list[dict[str, str]], column: str, task: str
) -> list[str] | Tensor:
    """A column of a CSV file as targets: names for ``class``, numbers ``[n, 1]`` for ``regression``.

    Raises:
        DataError: if there is no such column, or a cell is not a number.
    """
    check_column(path, rows, column)
    if task == "class":
        return [row[column] for row in rows]
    numbers = [parse_number(path, column, row[column]) for row in rows]
    return torch.tensor(numbers)[:, None]


def check_column(path: str, rows: list[dict[str, str]], column: str) -> None:
    """Require a column in the rows of a CSV file.

    Raises:
        DataError: naming the columns that there are.
    """
    if not rows or column not in rows[0]:
        columns = ", ".join(rows[0]) if rows else "a header"
        raise DataError(f"{path} has no column {column!r}, only {columns}; name one of them")


def parse_number(path: str, column: str, cell: str) -> float:
    """A cell of a table; NaN if it is empty, ``?`` or ``NA``.

    Raises:
        DataError: if it is not a number.
    """
    if not cell or cell in ("?", "NA"):
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        raise DataError(
            f"{column!r} in {path} is {cell!r}, which is not a number; leave the column out"
        ) from None
