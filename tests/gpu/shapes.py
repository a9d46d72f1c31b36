"""Shapes of known models without their weights, and a tokenizer of whole words, so that lengths are exact."""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

SHAPES = {
    "8b": {  # Llama 3.1
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "1.5b": {  # Qwen 2.5
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
}

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<user>", "<assistant>")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<user> ' + message['content'] + ' ' }}"
    "{% else %}{{ '<assistant> ' + message['content'] + ' </s> ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
PROMPT_MARKS = 2
"""Tokens that the template adds to a prompt; a response gets one, its end."""


def llama_config(shape: str) -> LlamaConfig:
    """The configuration of a Llama of a named shape."""
    return LlamaConfig(
        **SHAPES[shape],
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        dtype="bfloat16",
    )


def word_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word: ``w5``, ``w6``, ... after the special tokens."""
    ids = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    for index in range(len(ids), vocab_size):
        ids[f"w{index}"] = index
    word_level = Tokenizer(models.WordLevel(ids, "<pad>"))
    word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_level,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<user>", "<assistant>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_without_weights(shape: str, folder: Path) -> Path:
    """Write configuration and tokenizer of a model, which is all that is read of it from a disk."""
    config = llama_config(shape)
    config.save_pretrained(folder)
    word_tokenizer(config.vocab_size).save_pretrained(folder)
    return folder


def random_ids(count: int, vocab_size: int, generator: random.Random) -> list[int]:
    """Ids of ``count`` random words."""
    return [generator.randrange(len(SPECIAL_TOKENS), vocab_size) for _ in range(count)]


def random_words(count: int, vocab_size: int, generator: random.Random) -> str:
    """A text of ``count`` tokens."""
    return " ".join(f"w{index}" for index in random_ids(count, vocab_size, generator))
