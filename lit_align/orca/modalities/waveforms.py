"""Recordings: a folder or a ZIP archive of ``.wav`` files whose names say what they are."""

from __future__ import annotations

import io
import re
import wave
import zipfile
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_align.errors import DataError
from lit_align.orca.modalities.base import Examples, Modality, existing


@dataclass(frozen=True)
class Waveforms(Modality):
    r"""Mono or stereo sound in 16 bits, all at one rate.

    Args:
        name: pattern of a file's name without ``.wav``; ``label`` is its class, and who shares a ``group`` (if there is
            one) stays on one side of a split.
    """

    kind = "series"
    name: str = r"(?P<label>[^_]+)_(?P<group>[^_]+)_.*"

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """Files in the order of their names."""
        found = existing(path)
        if found.is_dir():
            files = {
                str(file.relative_to(found)): file.read_bytes() for file in found.rglob("*.wav")
            }
        else:
            with zipfile.ZipFile(found) as archive:
                files = {
                    name: archive.read(name) for name in archive.namelist() if name.endswith(".wav")
                }
        inputs, labels, groups, rates = [], [], [], set()
        for name in sorted(files):
            match = re.fullmatch(self.name, name.rpartition("/")[2].removesuffix(".wav"))
            if match is None:
                raise DataError(
                    f"{name} in {path} does not fit the pattern {self.name!r}; correct the pattern"
                )
            samples, rate = _samples(name, files[name])
            inputs.append(samples)
            labels.append(match["label"])
            groups.append(match.groupdict().get("group"))
            rates.add(rate)
        if len(rates) != 1:
            raise DataError(
                f"{path} has recordings at {sorted(rates) or 'no'} samples a second; give one rate"
            )
        return Examples(
            inputs, labels, None if None in groups else [str(group) for group in groups]
        )


def _samples(name: str, raw: bytes) -> tuple[Tensor, int]:
    """Samples ``[channels, length]`` from -1 to 1, and how many there are in a second."""
    with wave.open(io.BytesIO(raw)) as file:
        if file.getsampwidth() != 2:
            raise DataError(
                f"{name} has {8 * file.getsampwidth()} bits a sample, only 16 are read; convert it"
            )
        frames = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16)
        return frames.view(-1, file.getnchannels()).T.float() / 2**15, file.getframerate()
