"""What examples of any modality are read into, how they are described, and how they are laid side by side."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import DataError
from lit_align.package_files import resolve_package_path


@dataclass(frozen=True)
class Examples:
    """What a file holds.

    Args:
        inputs: one tensor an example, channels first: a series ``[channels, length]``, an image ``[channels, height,
            width]``, a row of a table ``[features]``, symbols ``[1, length]``. NaN is a value that is missing;
            integers are categories, of which only those in training are known.
        targets: what is to be learned, by its type: names are classes, booleans ``[n, labels]`` are labels that may
            hold together, numbers ``[n, outputs]`` are a regression, ``[n, channels, ...]`` a dense one.
        groups: examples of one group (a speaker, a patient) never stand on both sides of a split; None makes each
            different input a group of its own.
    """

    inputs: list[Tensor]
    targets: list[str] | Tensor
    groups: list[str] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Sequence[int]) -> Examples:
        """Those of ``rows``, in their order."""
        targets = (
            [self.targets[i] for i in rows]
            if isinstance(self.targets, list)
            else self.targets[list(rows)]
        )
        groups = None if self.groups is None else [self.groups[i] for i in rows]
        return Examples([self.inputs[i] for i in rows], targets, groups)


@dataclass(frozen=True)
class InputSpec:
    """What inputs look like, as far as an embedder has to know.

    Args:
        kind: ``series``, ``image``, ``tabular``, ``symbols``, or what a plugin calls its own.
        channels: numbers at each place; of a table, its features.
        shape: the longest there is of each other dimension; empty for a table.
        ragged: whether some are shorter.
        missing: whether values are missing.
        categories: integers that are known, 0 (any other) included; 0 for inputs that are numbers.
    """

    kind: str
    channels: int
    shape: tuple[int, ...]
    ragged: bool = False
    missing: bool = False
    categories: int = 0

    @classmethod
    def of(cls, kind: str, inputs: Sequence[Tensor]) -> InputSpec:
        """The description of ``inputs``.

        Example:
            >>> InputSpec.of("series", [torch.zeros(2, 7), torch.zeros(2, 5)])
            InputSpec(kind='series', channels=2, shape=(7,), ragged=True, missing=False, categories=0)
        """
        shapes = {tuple(x.shape[1:]) for x in inputs}
        number = inputs[0].is_floating_point()
        return cls(
            kind,
            len(inputs[0]),
            tuple(max(sizes) for sizes in zip(*shapes, strict=True)),
            len(shapes) > 1,
            number and any(bool(x.isnan().any()) for x in inputs),
            0 if number else 1 + max(int(x.max()) for x in inputs),
        )


@dataclass(frozen=True)
class TargetSpec:
    """What is to be learned, as far as a head has to know.

    Args:
        kind: what the targets are.
        outputs: classes, labels, numbers or channels.
        shape: of a dense target, without its channels.
        classes: names of the classes, in order.
        mean: of each number or channel in training; predictions start there.
        std: their deviation, in which losses are measured.
    """

    kind: Literal["class", "multilabel", "regression", "dense"]
    outputs: int
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Labelled(NamedTuple):
    """A batch.

    Args:
        x: inputs ``[n, channels, ...]``, zero where there is none.
        mask: where there is one, of the same shape: neither missing nor behind the end.
        y: targets: classes ``[n]``, labels ``[n, labels]`` as 0 and 1, or numbers ``[n, outputs]`` or
            ``[n, channels, ...]``.
    """

    x: Tensor
    mask: Tensor
    y: Tensor


def collate(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Inputs side by side, padded at their ends, and where there are values.

    Example:
        >>> x, mask = collate([torch.tensor([[1.0, torch.nan, 3.0]]), torch.tensor([[4.0]])])
        >>> x.tolist(), mask.int().tolist()
        ([[[1.0, 0.0, 3.0]], [[4.0, 0.0, 0.0]]], [[[1, 0, 1]], [[1, 0, 0]]])
    """
    shape = [max(sizes) for sizes in zip(*(x.shape for x in inputs), strict=True)]
    x, mask = (
        inputs[0].new_zeros(len(inputs), *shape),
        torch.zeros(len(inputs), *shape, dtype=torch.bool),
    )
    for row, values in enumerate(inputs):
        place = tuple(slice(size) for size in values.shape)
        x[row][place] = values.nan_to_num(0.0) if values.is_floating_point() else values
        mask[row][place] = ~values.isnan()
    return x, mask


class Modality(ABC):
    """How files of one kind are read: a frozen dataclass whose fields are its settings.

    Class attributes:
        kind: what embedders know the inputs as.
        as_is: True if neither numbers are to be standardised nor integers to be numbered.
    """

    kind: ClassVar[str]
    as_is: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """Everything in the file; ``split`` chooses where a file holds both.

        Raises:
            DataError: naming the file and what is wrong with it.
        """


def arrays(path: str, split: str) -> tuple[Any, list[str] | Tensor]:
    """``x`` and ``y`` of a NumPy archive, or its ``x_train`` and ``y_train`` (``test``): y as targets, by its type."""
    import numpy as np

    with np.load(existing(path), allow_pickle=False) as archive:
        names = ("x", "y") if "x" in archive else (f"x_{split}", f"y_{split}")
        if absent := [name for name in names if name not in archive]:
            raise DataError(
                f"{path} has no {' and no '.join(absent)}, only {', '.join(archive)}; save the arrays so"
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
    made = torch.from_numpy(y if y.dtype.kind == "b" else y.astype("float32"))
    return x, made.reshape(len(y), -1) if made.ndim < 3 else made


def rows_of(path: str) -> list[dict[str, str]]:
    """The rows of a CSV file with a header."""
    with existing(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(path: str, rows: list[dict[str, str]], name: str, task: str) -> list[str] | Tensor:
    """A column of a CSV file as targets."""
    if not rows or name not in rows[0]:
        raise DataError(
            f"{path} has no column {name!r}, only {', '.join(rows[0]) if rows else 'a header'}; name one"
        )
    values = [row[name] for row in rows]
    return (
        values
        if task == "class"
        else torch.tensor([[number(path, name, value)] for value in values])
    )


def number(path: str, name: str, value: str) -> float:
    """A cell of a table; NaN if it is empty."""
    try:
        return float(value) if value and value not in ("?", "NA") else float("nan")
    except ValueError:
        raise DataError(
            f"{name!r} in {path} is {value!r}, which is no number; leave the column out"
        ) from None


def existing(path: str) -> Path:
    """The file or folder at ``path``, which may be in an installed package: ``package:name/file``."""
    path = resolve_package_path(path, DataError)
    if not (found := Path(path).expanduser()).exists():
        raise DataError(f"there is no file {path}; check the path")
    return found
