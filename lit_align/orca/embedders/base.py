"""What an embedder must answer, and how its tokens come to look like the body's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_align.errors import ConfigError, DataError
from lit_align.orca.modalities import InputSpec
from lit_align.orca.types import BodySpec, Embedded, Stats


class Embedder(nn.Module, ABC):
    """A modality's way into a body: its arguments are its settings, its weights are made once the data are known.

    What ``embed`` gives is scaled and shifted, number by number; ``init_from`` sets both so that tokens have the
    moments that the body is used to. Positions and norms are the body's own.
    """

    input_kinds: ClassVar[frozenset[str]]  # kinds of input
    patch: tuple[int, ...] | None = (
        None  # what a token covers, where tokens tile the input; a dense head needs it
    )

    def attach(self, inputs: InputSpec, body: BodySpec) -> None:
        """Make the weights; called once, before the first input."""
        name = type(self).__name__
        if inputs.kind not in self.input_kinds:
            raise ConfigError(
                f"{name} takes {' or '.join(sorted(self.input_kinds))} data, not {inputs.kind}; choose another"
            )
        self.build(inputs, body.d_model)
        if (tokens := self.n_tokens(inputs)) > body.max_tokens:
            raise ConfigError(
                f"{name} makes {tokens} tokens, the body reads {body.max_tokens}; make it coarser"
            )
        self.scale, self.shift = (
            nn.Parameter(torch.ones(body.d_model)),
            nn.Parameter(torch.zeros(body.d_model)),
        )
        self.max_tokens = body.max_tokens

    @abstractmethod
    def build(self, inputs: InputSpec, width: int) -> None:
        """Make the weights for tokens of ``width`` numbers."""

    @abstractmethod
    def n_tokens(self, inputs: InputSpec) -> int:
        """Tokens of the longest input; asked after ``build``."""

    @abstractmethod
    def embed(self, x: Tensor, mask: Tensor) -> Embedded:
        """Tokens of any moments, from ``[n, channels, ...]``, zero where ``mask``, of that shape, says there is none.

        What is behind the end of an input, or missing, must not count.
        """

    def forward(self, x: Tensor, mask: Tensor) -> Embedded:
        """Tokens for the body; arguments as for ``embed``."""
        tokens, there, grid = self.embed(x, mask)
        if tokens.shape[1] > self.max_tokens:
            raise DataError(
                f"an input makes {tokens.shape[1]} tokens, the body reads {self.max_tokens}; shorten it"
            )
        return Embedded((tokens * self.scale + self.shift) * there[..., None], there, grid)

    @torch.no_grad()
    def init_from(self, stats: Stats, x: Tensor, mask: Tensor) -> None:
        """Give the tokens of ``x`` the body's mean and deviation; a number that does not vary takes the mean."""
        tokens, there, _ = self.embed(x, mask)
        std, mean = torch.std_mean(tokens[there], 0, correction=0)
        varies = std > 1e-5 * mean.abs().clamp(min=1e-5)
        self.scale.copy_(stats.std / torch.where(varies, std, 1.0))
        self.shift.copy_(stats.mean - mean * self.scale)
