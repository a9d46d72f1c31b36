"""Features of a table as tokens (Gorishniy et al., 2021, https://arxiv.org/abs/2106.11959)."""

import torch
from torch import Tensor, nn

from lit_align import Register, hookimpl
from lit_align.orca.embedders import Embedded, Embedder, InputSpec


class Tabular(Embedder):
    """A token for each feature: its value times a learned vector, plus a bias; a missing value is no token."""

    input_kinds = frozenset({"tabular"})

    def build(self, inputs: InputSpec, d_model: int) -> None:
        self.weight = nn.Parameter(torch.randn(inputs.channels, d_model))
        self.bias = nn.Parameter(torch.randn(inputs.channels, d_model))

    def n_tokens(self, inputs: InputSpec) -> int:
        return inputs.channels

    def embed(self, x: Tensor, mask: Tensor) -> Embedded:
        return Embedded(x[..., None] * self.weight + self.bias, mask)


@hookimpl
def register_embedders(register: Register) -> None:
    register(Tabular)
