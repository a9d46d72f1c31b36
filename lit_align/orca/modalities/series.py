"""Time series: the archives' ``.ts`` and ``.tsv`` (https://www.timeseriesclassification.com), and NumPy archives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_align.errors import DataError
from lit_align.orca.modalities.base import (
    Examples,
    Modality,
    load_arrays,
    parse_number,
    resolve_path,
)


@dataclass(frozen=True)
class Series(Modality):
    """One or several numbers at each time: ``.ts``, ``.tsv`` (label first) or ``.npz`` (``[n, channels, length]``)."""

    kind = "series"

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """Series may differ in length; a missing value is NaN."""
        if path.endswith(".npz"):
            return _read_archive(path, split)
        text = resolve_path(path).read_text("utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines()]
        return _parse_tsv(path, lines) if path.endswith(".tsv") else _parse_ts(path, lines)


def _read_archive(path: str, split: str) -> Examples:
    x, targets = load_arrays(path, split)
    if x.ndim not in (2, 3):
        raise DataError(
            f"the series in {path} are of rank {x.ndim}; give [n, length] or [n, channels, length]"
        )
    values = torch.from_numpy(x.astype("float32"))
    series = values.reshape(len(x), -1, x.shape[-1])
    return Examples(list(series), targets)


def _parse_tsv(path: str, lines: list[str]) -> Examples:
    """A series a line, of one channel, its label first."""
    inputs, targets = [], []
    for line in lines:
        if line:
            label, *values = line.split("\t")
            inputs.append(_parse_channels(path, [values]))
            targets.append(label)
    return Examples(inputs, targets)


def _parse_ts(path: str, lines: list[str]) -> Examples:
    """A header of ``@name value``, then a series a line: channels separated by colons, the target after the last."""
    has_numbers = False  # to predict, not names of classes
    inputs, targets = [], []
    for line in lines:
        if line.startswith("@"):
            name, *values = line.split()
            if name.lower() == "@timestamps" and values == ["true"]:
                raise DataError(
                    f"{path} has timestamps, which are not supported; give series with one value at each step"
                )
            if name.lower() == "@targetlabel":
                has_numbers = values[0] == "true"
        elif line and not line.startswith("#"):
            *channels, target = line.split(":")
            inputs.append(_parse_channels(path, [channel.split(",") for channel in channels]))
            targets.append(target)
    if has_numbers:
        numbers = [[parse_number(path, "target", target)] for target in targets]
        return Examples(inputs, torch.tensor(numbers))
    return Examples(inputs, [target.strip() for target in targets])


def _parse_channels(path: str, channels: list[list[str]]) -> Tensor:
    """Values ``[channels, length]``; a shorter channel is padded with NaN."""
    length = max(map(len, channels), default=0)
    rows = []
    for cells in channels:
        row = [parse_number(path, "a value", cell.strip()) for cell in cells]
        padding = [math.nan] * (length - len(row))
        rows.append(row + padding)
    return torch.tensor(rows)
