"""Pieces of a series or squares of an image as tokens (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929)."""

from itertools import count
from math import prod

import torch
from torch import Tensor, nn

from lit_align import Register, hookimpl
from lit_align.errors import ConfigError
from lit_align.orca.embedders import Embedded, Embedder, InputSpec


class Patches(Embedder):
    """Equal pieces of an input, each with all channels a token, row by row; a piece without any value is none.

    The last pieces are padded, so that any length will do. Where values may be missing, a token is told which are.

    Args:
        size: length of a piece in each dimension; None takes the smallest that makes at most ``most`` tokens.
        max_patches: tokens of the longest input.
    """

    input_kinds = frozenset({"series", "image"})

    def __init__(self, size: int | None = None, max_patches: int = 64) -> None:
        super().__init__()
        if (size is not None and size < 1) or max_patches < 1:
            raise ConfigError(f"size is {size} and most is {max_patches}; both must be at least 1")
        self.size, self.max_patches = size, max_patches

    def build(self, inputs: InputSpec, width: int) -> None:
        fits = (
            side
            for side in count(1)
            if prod(-(-n // side) for n in inputs.shape) <= self.max_patches
        )
        self.patch = (self.size or next(fits),) * len(inputs.shape)
        self.gaps = inputs.ragged or inputs.missing
        self.project = nn.Linear(
            inputs.channels * prod(self.patch) * (2 if self.gaps else 1), width
        )

    def n_tokens(self, inputs: InputSpec) -> int:
        assert self.patch is not None
        return prod(
            -(-length // step) for length, step in zip(inputs.shape, self.patch, strict=True)
        )

    def embed(self, x: Tensor, mask: Tensor) -> Embedded:
        assert self.patch is not None
        (values, grid), (there, _) = cut(x, self.patch), cut(mask, self.patch)
        tokens = self.project(torch.cat([values, there.to(values)], -1) if self.gaps else values)
        return Embedded(tokens, there.any(-1), grid)


def cut(x: Tensor, size: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """Patches of ``[n, channels, ...]``, padded with zeros at the ends: ``[n, patches, numbers]``, and their grid.

    Example:
        >>> cut(torch.tensor([[[1.0, 2.0, 3.0]]]), (2,))[0].tolist()
        [[[1.0, 2.0], [3.0, 0.0]]]
    """
    short = [-length % step for length, step in zip(x.shape[2:], size, strict=True)]
    x = nn.functional.pad(x, [end for by in reversed(short) for end in (0, by)])
    for dim, step in enumerate(size):
        x = x.unfold(2 + dim, step, step)
    grid = tuple(x.shape[2 : 2 + len(size)])
    return x.movedim(1, 1 + len(size)).flatten(1, len(size)).flatten(2), grid


@hookimpl
def register_embedders(register: Register) -> None:
    register(Patches)
