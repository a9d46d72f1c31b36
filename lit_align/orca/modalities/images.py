"""Images: MNIST's ``idx`` files (http://yann.lecun.com/exdb/mnist), scikit-learn's digits, and NumPy archives."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Literal

import torch

from lit_align.errors import DataError
from lit_align.orca.modalities.base import Examples, Modality, load_arrays, resolve_path


@dataclass(frozen=True)
class Images(Modality):
    """Numbers on a grid: ``...-images-idx3-ubyte[.gz]``, ``.npz`` (``[n, channels, height, width]``) or ``digits``.

    A map from fields to fields, such as Darcy flow, is a set of images with dense targets.
    """

    kind = "image"

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """The labels of an ``idx`` file are read from the file beside it."""
        if path == "digits":
            return _load_digits()
        if path.endswith(".npz"):
            return _read_archive(path, split)
        pixels = _read_idx(path, 3)
        labels = _read_idx(path.replace("images-idx3", "labels-idx1"), 1)
        if len(pixels) != len(labels):
            raise DataError(
                f"{path} has {len(pixels)} images and {len(labels)} labels; each image needs one"
            )
        names = [str(int(label)) for label in labels]
        return Examples(list(pixels.float()[:, None]), names)


def _load_digits() -> Examples:
    """The 8 by 8 digits that come with scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("digits come with scikit-learn; run: pip install scikit-learn") from None
    x, y = load_digits(return_X_y=True)
    images = torch.from_numpy(x).float().view(-1, 1, 8, 8)
    return Examples(list(images), [str(label) for label in y])


def _read_archive(path: str, split: str) -> Examples:
    x, targets = load_arrays(path, split)
    if x.ndim not in (3, 4):
        raise DataError(
            f"images in {path} are of rank {x.ndim}; give [n, height, width] or with channels"
        )
    values = torch.from_numpy(x.astype("float32"))
    images = values.reshape(len(x), -1, *x.shape[-2:])
    if isinstance(targets, torch.Tensor) and targets.ndim == 3:
        targets = targets[:, None]
    return Examples(list(images), targets)


def _read_idx(path: str, rank: int) -> torch.Tensor:
    """Bytes of an ``idx`` file; its header is two zeros, 8 for bytes, the rank, and each dimension in four bytes."""
    file = resolve_path(path)
    raw = file.read_bytes()
    if file.suffix == ".gz":
        raw = gzip.decompress(raw)
    if raw[:4] != bytes([0, 0, 8, rank]):
        raise DataError(
            f"{path} is not an idx file of bytes of rank {rank}; give ...-images-idx3-ubyte, .npz or digits"
        )
    start = 4 * rank + 4
    sizes = []
    for offset in range(4, start, 4):
        sizes.append(int.from_bytes(raw[offset : offset + 4], "big"))
    pixels = bytearray(raw[start:])  # writable, as torch wants it
    return torch.frombuffer(pixels, dtype=torch.uint8).view(sizes)
