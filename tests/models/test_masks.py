"""One mask serves all layers."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lit_align.data.packing import pack
from lit_align.functional.trees import attention_mask
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.lora import Lora
from lit_align.models.masks import build_mask
from lit_align.models.tree_forward import TreeForward
from lit_align.types import Group, Tree
from tests.peak_memory import Peak

PROMPT, RESPONSE = 1024, 128
FLOAT32 = 4


def pair():
    """A prompt with two responses, in one row."""
    responses = [[1] * RESPONSE] * 2
    scored = [[True] * RESPONSE] * 2
    tree = Tree([1] * PROMPT, responses, scored, Group("", ["", ""]))
    (batch,) = pack([tree], tree.tokens, dense=True)
    return batch.trees


def llama(layers):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=layers,
        num_attention_heads=1,
        vocab_size=16,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config).requires_grad_(False)


def peak(layers, trees):
    adapters = AdapterSet(llama(layers), Lora(r=1), gradient_checkpointing=False).train()
    forward = TreeForward(adapters.model)
    with Peak(adapters) as seen:
        forward(trees).logps.sum().backward()
    return seen.above_start


def test_no_layer_keeps_numbers_for_each_pair_of_tokens():
    """A layer more takes far less than one number for each pair, which sdpa would make of a boolean mask."""
    trees = pair()
    length = PROMPT + 2 * RESPONSE
    pairs = FLOAT32 * length**2
    one, three = peak(1, trees), peak(3, trees)
    assert one > pairs  # the mask itself
    assert three - one < 0.5 * pairs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bias_of_sdpa_says_what_the_boolean_mask_says(dtype):
    trees = pair()
    bias = build_mask(llama(1).to(dtype), trees, window=200)
    assert bias.dtype == dtype
    assert torch.equal(bias == 0, attention_mask(trees, 200)[:, None])
    assert torch.equal(bias[bias != 0].unique(), torch.tensor([-torch.inf], dtype=dtype))
