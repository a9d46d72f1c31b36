"""Interface of embedders, and how their tokens are scaled to look like the backbone's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from lit_align.errors import ConfigError, DataError
from lit_align.orca.modalities import InputSpec
from lit_align.orca.types import BackboneSpec, Embedded, TokenStats
from lit_align.plugin_contracts import embedded_fault, require_contract


class Embedder(nn.Module, ABC):
    """Turns inputs of a modality into tokens; its arguments are its settings, its weights are built for the data.

    What `embed` returns is scaled and shifted, component by component; `match_stats` sets both so that tokens have the
    statistics of the backbone's own. Positions and norms are the backbone's.

    Class attributes:
        input_kinds: kinds of inputs that it reads.
        patch: size of the patch that a token covers, where tokens tile the input; a dense target needs it.
    """

    input_kinds: ClassVar[frozenset[str]]
    patch: tuple[int, ...] | None = None

    def attach(self, inputs: InputSpec, backbone: BackboneSpec) -> None:
        """Build the weights; called once, before the first input.

        Raises:
            ConfigError: if the inputs are of another kind, or become more tokens than the backbone reads.
        """
        name = type(self).__name__
        if inputs.kind not in self.input_kinds:
            kinds = " or ".join(sorted(self.input_kinds))
            raise ConfigError(
                f"{name} reads {kinds} data, not {inputs.kind}; choose another embedder"
            )
        self.build(inputs, backbone.d_model)
        num_tokens = self.n_tokens(inputs)
        if num_tokens > backbone.max_tokens:
            raise ConfigError(
                f"{name} makes {num_tokens} tokens, the backbone reads {backbone.max_tokens}; make it coarser"
            )
        self.scale = nn.Parameter(torch.ones(backbone.d_model))
        self.shift = nn.Parameter(torch.zeros(backbone.d_model))
        self.max_tokens = backbone.max_tokens

    @abstractmethod
    def build(self, inputs: InputSpec, d_model: int) -> None:
        """Build the weights, for tokens of width ``d_model``."""

    @abstractmethod
    def n_tokens(self, inputs: InputSpec) -> int:
        """Tokens of the longest input; called after `build`."""

    @abstractmethod
    def embed(self, x: Tensor, mask: Tensor) -> Embedded:
        """Tokens of any scale.

        Padding and missing values must not affect the tokens.

        Args:
            x: ``[n, channels, ...]``; zero where ``mask`` is False.
            mask: of the same shape; False at padding and at missing values.
        """

    def forward(self, x: Tensor, mask: Tensor) -> Embedded:
        """Tokens for the backbone; arguments as for `embed`."""
        tokens, token_mask, grid = self._checked_tokens(x, mask)
        if tokens.shape[1] > self.max_tokens:
            raise DataError(
                f"an input makes {tokens.shape[1]} tokens, the backbone reads {self.max_tokens}; shorten it"
            )
        scaled = tokens * self.scale + self.shift
        masked = scaled * token_mask[..., None]
        return Embedded(masked, token_mask, grid)

    def _checked_tokens(self, x: Tensor, mask: Tensor) -> Embedded:
        embedded = self.embed(x, mask)
        require_contract(embedded_fault(self, embedded, len(x), len(self.scale)))
        return embedded

    @torch.no_grad()
    def match_stats(self, stats: TokenStats, x: Tensor, mask: Tensor) -> None:
        """Give the tokens of ``x`` the mean and standard deviation in ``stats``; a constant component gets the mean."""
        tokens, token_mask, _ = self._checked_tokens(x, mask)
        std, mean = torch.std_mean(tokens[token_mask], 0, correction=0)
        varies = std > 1e-5 * mean.abs().clamp(min=1e-5)
        self.scale.copy_(stats.std / torch.where(varies, std, 1.0))
        self.shift.copy_(stats.mean - mean * self.scale)
