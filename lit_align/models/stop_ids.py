"""The tokens at which a model stops: in sampling, and in what is written for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_align.chat.turn_ends import turn_ends

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedModel, PreTrainedTokenizerBase


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a completion: EOS of model and tokenizer, and the end of a turn in the chat template."""
    stop_tokens = set(turn_ends(tokenizer))
    for source in (model.generation_config, model.config):
        eos = getattr(source, "eos_token_id", None)
        if isinstance(eos, list):
            stop_tokens.update(eos)
        elif eos is not None:
            stop_tokens.add(eos)
    return sorted(stop_tokens)
