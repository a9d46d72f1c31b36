"""Time series: the archives' ``.ts`` and ``.tsv`` (https://www.timeseriesclassification.com), and NumPy archives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_align.errors import DataError
from lit_align.orca.modalities.base import Examples, Modality, arrays, existing, number


@dataclass(frozen=True)
class Series(Modality):
    """One or several numbers at each time: ``.ts``, ``.tsv`` (label first) or ``.npz`` (``[n, channels, length]``)."""

    kind = "series"

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """Ragged series stay so; what is missing is NaN."""
        if path.endswith(".npz"):
            x, targets = arrays(path, split)
            if x.ndim not in (2, 3):
                raise DataError(
                    f"the series in {path} are of rank {x.ndim}; give [n, length] or [n, channels, length]"
                )
            return Examples(
                list(torch.from_numpy(x.astype("float32")).reshape(len(x), -1, x.shape[-1])),
                targets,
            )
        lines = [
            line.strip()
            for line in existing(path).read_text("utf-8", errors="replace").splitlines()
        ]
        if path.endswith(".tsv"):
            cells = [line.split("\t") for line in lines if line]
            return Examples([_values(path, [row[1:]]) for row in cells], [row[0] for row in cells])
        return _ts(path, lines)


def _ts(path: str, lines: list[str]) -> Examples:
    """A header of ``@name value``, then a line each: channels parted by colons, the target after the last."""
    header = {line.split()[0].lower(): line.split()[1:] for line in lines if line.startswith("@")}
    if header.get("@timestamps") == ["true"]:
        raise DataError(
            f"{path} has timestamps, which are not read; give series with one value at each step"
        )
    rows = [line.split(":") for line in lines if line and line[0] not in "#@"]
    inputs = [_values(path, [channel.split(",") for channel in row[:-1]]) for row in rows]
    if header.get("@targetlabel", ["false"])[0] == "true":
        return Examples(inputs, torch.tensor([[number(path, "target", row[-1])] for row in rows]))
    return Examples(inputs, [row[-1].strip() for row in rows])


def _values(path: str, channels: list[list[str]]) -> Tensor:
    """``[channels, length]``; what a channel has less than the longest is missing."""
    length = max(map(len, channels), default=0)
    return torch.tensor(
        [
            [number(path, "a value", v.strip()) for v in row] + [float("nan")] * (length - len(row))
            for row in channels
        ]
    )
