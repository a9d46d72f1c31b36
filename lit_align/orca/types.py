"""The data types that cross-modal training adds: statistics of tokens, what a backbone reads, embedded inputs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Stats(NamedTuple):
    """Moments of the tokens that a body is used to: mean and standard deviation of each number, ``[d_model]``."""

    mean: Tensor
    std: Tensor


class BodySpec(NamedTuple):
    """What an embedder has to know of the transformer that it works for.

    Args:
        d_model: numbers in a token.
        max_tokens: tokens that it reads.
        stats: of the tokens it is used to.
    """

    d_model: int
    max_tokens: int
    stats: Stats


class Embedded(NamedTuple):
    """Inputs that are not text, as tokens.

    Args:
        tokens: ``[n, tokens, d_model]``; zero where there is none.
        mask: ``[n, tokens]``, where there is one.
        grid: how tokens stand if they tile the input, row by row: ``(tokens,)`` or ``(height, width)``.
    """

    tokens: Tensor
    mask: Tensor
    grid: tuple[int, ...] | None = None

    def pooled(self) -> Tensor:
        """The mean token of each input, ``[n, d_model]``."""
        return (self.tokens * self.mask[..., None]).sum(1) / self.mask.sum(1, keepdim=True).clamp(
            min=1
        )
