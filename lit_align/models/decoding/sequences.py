"""The kind of sequences that a model can decode."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel
    from lit_align.models.decoding.buffered_sequences import BufferedSequences
    from lit_align.models.decoding.dynamic_sequences import DynamicSequences
    from lit_align.models.decoding.uncached_sequences import UncachedSequences


def sequences_for(
    model: PreTrainedModel, limit: int
) -> BufferedSequences | DynamicSequences | UncachedSequences:
    """Sequences of a model, in the fastest way that it allows.

    Args:
        model: a causal language model.
        limit: largest number of tokens of a row.
    """
    from transformers import DynamicCache

    from lit_align.models.decoding.buffered_cache import is_buffered
    from lit_align.models.decoding.buffered_sequences import BufferedSequences
    from lit_align.models.decoding.dynamic_sequences import DynamicSequences
    from lit_align.models.decoding.next_logits import cache_argument
    from lit_align.models.decoding.uncached_sequences import UncachedSequences

    if cache_argument(model) is None:
        return UncachedSequences(model)
    if is_buffered(DynamicCache(config=model.config), limit):
        return BufferedSequences(model)
    return DynamicSequences(model)
