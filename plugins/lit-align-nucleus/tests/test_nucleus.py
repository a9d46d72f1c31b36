"""Tokens outside the nucleus are never drawn, and those inside have their share of its probability."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from lit_align_nucleus import Nucleus
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_align.models.samplers import SampledModel, SamplingRequest
from lit_align.testing import check_sampler


@pytest.fixture(scope="module")
def model():
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate("abcdefgh")}, "a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="h", pad_token="h")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=7, bos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    base = LlamaForCausalLM(config).eval()
    return SampledModel("a model", tokenizer, partial(nullcontext, base))


def test_only_the_nucleus_is_drawn(model):
    with model.activate() as base, torch.no_grad():
        probabilities = base(torch.tensor([[1, 2]])).logits[0, -1].softmax(-1)
    ordered, tokens = probabilities.sort(descending=True)
    count = int((ordered.cumsum(0) < 0.6).sum()) + 1
    request = SamplingRequest([[1, 2]], max_new_tokens=1, num_generations=64)
    [drawn] = Nucleus(0.6).sample(model, request)
    assert {completion.ids[0] for completion in drawn} == set(tokens[:count].tolist())
    for completion in drawn:
        share = probabilities[completion.ids[0]] / ordered[:count].sum()
        assert completion.logps[0] == pytest.approx(share.log().item(), abs=1e-4)


def test_it_is_a_valid_sampler(model):
    check_sampler(Nucleus(), model, [[1, 2], [3], [4, 5, 6]])
