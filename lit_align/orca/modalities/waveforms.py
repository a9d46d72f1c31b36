"""Sound recordings: a folder or a ZIP archive of ``.wav`` files whose names hold their labels."""

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
from lit_align.orca.modalities.base import Examples, Modality, resolve_path


@dataclass(frozen=True)
class Waveforms(Modality):
    r"""Mono or stereo sound in 16 bits, all at one sample rate.

    Args:
        name: pattern of a file's name without ``.wav``; its ``label`` is the class, and files of the same ``group`` (if
            there is one) stay on one side of a split.
    """

    kind = "series"
    name: str = r"(?P<label>[^_]+)_(?P<group>[^_]+)_.*"

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """Recordings in the order of their names."""
        files = _read_files(path)
        inputs, labels, groups, rates = [], [], [], set()
        for name in sorted(files):
            match = re.fullmatch(self.name, name.rpartition("/")[2].removesuffix(".wav"))
            if match is None:
                raise DataError(
                    f"{name} in {path} does not fit the pattern {self.name!r}; correct the pattern"
                )
            samples, rate = _decode(name, files[name])
            inputs.append(samples)
            labels.append(match["label"])
            groups.append(match.groupdict().get("group"))
            rates.add(rate)
        if len(rates) != 1:
            raise DataError(
                f"{path} has recordings at {sorted(rates) or 'no'} samples a second; use one rate"
            )
        if None in groups:
            return Examples(inputs, labels)
        return Examples(inputs, labels, [str(group) for group in groups])


def _read_files(path: str) -> dict[str, bytes]:
    """Contents of the ``.wav`` files of a folder or an archive, by name."""
    files = {}
    folder = resolve_path(path)
    if folder.is_dir():
        for file in folder.rglob("*.wav"):
            files[str(file.relative_to(folder))] = file.read_bytes()
        return files
    with zipfile.ZipFile(folder) as archive:
        for name in archive.namelist():
            if name.endswith(".wav"):
                files[name] = archive.read(name)
    return files


def _decode(name: str, raw: bytes) -> tuple[Tensor, int]:
    """Samples ``[channels, length]`` from -1 to 1, and the sample rate."""
    with wave.open(io.BytesIO(raw)) as file:
        if file.getsampwidth() != 2:
            raise DataError(
                f"{name} has {8 * file.getsampwidth()} bits a sample, only 16 are supported; convert it"
            )
        frames = bytearray(file.readframes(file.getnframes()))
        samples = torch.frombuffer(frames, dtype=torch.int16)
        channels = samples.view(-1, file.getnchannels()).T
        return channels.float() / 2**15, file.getframerate()
