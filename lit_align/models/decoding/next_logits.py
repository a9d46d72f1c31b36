"""One pass of a model that predicts the next token of each row."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel


CACHE_ARGUMENTS = ("past_key_values", "cache_params")
"""Names under which models of transformers take a cache; the second is that of state-space models."""


def cache_argument(model: PreTrainedModel) -> str | None:
    """The name of the argument by which a model takes transformers' cache; None if it takes none.

    A model would swallow an argument that it does not know, and read each token as if it were the first.
    """
    parameters = inspect.signature(model.forward).parameters
    for name in CACHE_ARGUMENTS:
        if name in parameters:
            kinds = str(parameters[name].annotation).replace("|", " ").split()
            if any(kind.rpartition(".")[2].strip("'>") == "Cache" for kind in kinds):
                return name
    return None


class NextLogits:
    """Logits of the next token, ``[rows, vocabulary]``, in float32.

    Args:
        model: a causal language model.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        parameters = inspect.signature(model.forward).parameters
        self.model = model
        self.cache_name = cache_argument(model)
        self.takes_positions = "position_ids" in parameters  # not every architecture does
        self.options: dict[str, Any] = {"use_cache": True}
        if "logits_to_keep" in parameters:
            self.options["logits_to_keep"] = 1

    def __call__(
        self, ids: Tensor, attention_mask: Tensor | None, positions: Tensor, cache: Any
    ) -> Tensor:
        """Read tokens after those in the cache.

        Args:
            ids: ``[rows, tokens]``.
            attention_mask: of all tokens so far, in a form that the model takes.
            positions: like ``ids``.
            cache: of transformers; the tokens are added.
        """
        options = {**self.options, str(self.cache_name): cache}
        if self.takes_positions:
            options["position_ids"] = positions
        output = self.model(input_ids=ids, attention_mask=attention_mask, **options)
        return cast(Tensor, output.logits[:, -1].float())


@contextmanager
def contiguous_head_input(model: PreTrainedModel) -> Iterator[None]:
    """The head gets its input in one piece: it would read the last tokens of longer rows by a slower product."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is None:
        yield
        return

    def make_contiguous(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *others = inputs
        return hidden.contiguous(), *others

    handle = head.register_forward_pre_hook(make_contiguous)
    try:
        yield
    finally:
        handle.remove()
