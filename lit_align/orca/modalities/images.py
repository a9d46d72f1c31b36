"""Images: MNIST's ``idx`` files (http://yann.lecun.com/exdb/mnist), scikit-learn's digits, and NumPy archives."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Literal

import torch

from lit_align.errors import DataError
from lit_align.orca.modalities.base import Examples, Modality, arrays, existing


@dataclass(frozen=True)
class Images(Modality):
    """Numbers on a grid: ``...-images-idx3-ubyte[.gz]``, ``.npz`` (``[n, channels, height, width]``) or ``digits``.

    Fields to be mapped to fields, such as Darcy's flow, are images with dense targets.
    """

    kind = "image"

    def __call__(self, path: str, split: Literal["train", "test"]) -> Examples:
        """The labels of an ``idx`` file are looked for beside it."""
        if path == "digits":
            try:
                from sklearn.datasets import load_digits
            except ImportError:
                raise DataError(
                    "digits come with scikit-learn; run: pip install scikit-learn"
                ) from None
            x, y = load_digits(return_X_y=True)
            return Examples(
                list(torch.from_numpy(x).float().view(-1, 1, 8, 8)), [str(name) for name in y]
            )
        if path.endswith(".npz"):
            x, targets = arrays(path, split)
            if x.ndim not in (3, 4):
                raise DataError(
                    f"images in {path} are of rank {x.ndim}; give [n, height, width] or with channels"
                )
            values = torch.from_numpy(x.astype("float32")).reshape(len(x), -1, *x.shape[-2:])
            if isinstance(targets, torch.Tensor) and targets.ndim == 3:
                targets = targets[:, None]
            return Examples(list(values), targets)
        pixels, labels = _idx(path, 3), _idx(path.replace("images-idx3", "labels-idx1"), 1)
        if len(pixels) != len(labels):
            raise DataError(
                f"{path} has {len(pixels)} images and its labels are {len(labels)}; each image needs one"
            )
        return Examples(list(pixels.float()[:, None]), [str(int(name)) for name in labels])


def _idx(path: str, rank: int) -> torch.Tensor:
    """Bytes with a header: two zeros, 8 for bytes, the rank, and each dimension in four bytes."""
    file = existing(path)
    raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    if raw[:4] != bytes([0, 0, 8, rank]):
        raise DataError(
            f"{path} is no idx file of bytes of rank {rank}; give ...-images-idx3-ubyte, .npz or digits"
        )
    sizes = [int.from_bytes(raw[4 * i : 4 * i + 4], "big") for i in range(1, rank + 1)]
    return torch.frombuffer(bytearray(raw[4 * rank + 4 :]), dtype=torch.uint8).view(sizes)
