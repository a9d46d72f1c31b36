"""Pieces of a series or squares of an image as tokens (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929)."""

from math import prod

import torch
from torch import Tensor, nn

from lit_align import Register, hookimpl
from lit_align.errors import ConfigError
from lit_align.orca.embedders import Embedded, Embedder, InputSpec


class Patches(Embedder):
    """Equal pieces of an input, each with all its channels one token, row by row; an empty piece is no token.

    The last pieces are padded, so any length fits. Where values may be missing, the token also gets their mask.

    Args:
        size: length of a piece in each dimension; null takes the smallest that makes at most ``max_patches`` tokens.
        max_patches: most tokens of the longest input, if size is null.
    """

    input_kinds = frozenset({"series", "image"})

    def __init__(self, size: int | None = None, max_patches: int = 64) -> None:
        super().__init__()
        if (size is not None and size < 1) or max_patches < 1:
            raise ConfigError(
                f"size is {size} and max_patches is {max_patches}; both must be at least 1"
            )
        self.size, self.max_patches = size, max_patches

    def build(self, inputs: InputSpec, d_model: int) -> None:
        size = self.size or self._smallest_size(inputs.shape)
        self.patch = (size,) * len(inputs.shape)
        self.reads_mask = inputs.ragged or inputs.missing
        numbers = inputs.channels * prod(self.patch)
        self.project = nn.Linear(2 * numbers if self.reads_mask else numbers, d_model)

    def _smallest_size(self, shape: tuple[int, ...]) -> int:
        size = 1
        while _count_patches(shape, (size,) * len(shape)) > self.max_patches:
            size += 1
        return size

    def n_tokens(self, inputs: InputSpec) -> int:
        assert self.patch is not None
        return _count_patches(inputs.shape, self.patch)

    def embed(self, x: Tensor, mask: Tensor) -> Embedded:
        assert self.patch is not None
        values, grid = cut_patches(x, self.patch)
        present, _ = cut_patches(mask, self.patch)
        if self.reads_mask:
            values = torch.cat([values, present.to(values)], -1)
        return Embedded(self.project(values), present.any(-1), grid)


def _count_patches(shape: tuple[int, ...], patch: tuple[int, ...]) -> int:
    counts = []
    for length, size in zip(shape, patch, strict=True):
        counts.append(-(-length // size))
    return prod(counts)


def cut_patches(x: Tensor, patch: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """Patches of ``[n, channels, ...]``, padded with zeros at the ends: ``[n, patches, numbers]``, and their grid.

    Example:
        >>> cut_patches(torch.tensor([[[1.0, 2.0, 3.0]]]), (2,))[0].tolist()
        [[[1.0, 2.0], [3.0, 0.0]]]
    """
    padding: list[int] = []
    for length, size in zip(x.shape[2:], patch, strict=True):
        padding = [0, -length % size, *padding]  # torch counts from the last dimension
    x = nn.functional.pad(x, padding)
    for dim, size in enumerate(patch):
        x = x.unfold(2 + dim, size, size)
    dims = len(patch)
    grid = tuple(x.shape[2 : 2 + dims])
    return x.movedim(1, 1 + dims).flatten(1, dims).flatten(2), grid


@hookimpl
def register_embedders(register: Register) -> None:
    register(Patches)
