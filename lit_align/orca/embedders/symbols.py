"""Symbols as tokens, by an embedding table of their own."""

from torch import Tensor, nn

from lit_align import Register, hookimpl
from lit_align.orca.embedders import Embedded, Embedder, InputSpec


class Symbols(Embedder):
    """A learned vector for each symbol of the training data, and one for all others."""

    input_kinds = frozenset({"symbols"})

    def build(self, inputs: InputSpec, d_model: int) -> None:
        self.table = nn.Embedding(inputs.categories, d_model)

    def n_tokens(self, inputs: InputSpec) -> int:
        return inputs.shape[0]

    def embed(self, x: Tensor, mask: Tensor) -> Embedded:
        return Embedded(self.table(x[:, 0]), mask[:, 0])


@hookimpl
def register_embedders(register: Register) -> None:
    register(Symbols)
