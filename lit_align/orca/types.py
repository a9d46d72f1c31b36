"""Data types of cross-modal training: statistics of tokens, what a backbone reads, inputs as tokens."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TokenStats(NamedTuple):
    """Mean and standard deviation of each component of a backbone's own tokens, ``[d_model]``."""

    mean: Tensor
    std: Tensor


class BackboneSpec(NamedTuple):
    """What an embedder needs to know about the backbone.

    Args:
        d_model: width of a token.
        max_tokens: longest input, in tokens.
        stats: statistics of the backbone's own tokens.
    """

    d_model: int
    max_tokens: int
    stats: TokenStats


class Embedded(NamedTuple):
    """Inputs of another modality, as tokens.

    Args:
        tokens: ``[n, tokens, d_model]``; zero at padding.
        mask: ``[n, tokens]``; False at padding.
        grid: number of tokens along each dimension if they tile the input row by row: ``(tokens,)`` or
            ``(height, width)``.
    """

    tokens: Tensor
    mask: Tensor
    grid: tuple[int, ...] | None = None

    def pooled(self) -> Tensor:
        """Mean token of each input, ``[n, d_model]``."""
        count = self.mask.sum(1, keepdim=True).clamp(min=1)
        return (self.tokens * self.mask[..., None]).sum(1) / count
