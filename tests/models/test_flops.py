"""Floating-point operations of one step, against the formula: no timing, no noise."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from lit_align.data.packing import pack_rows
from lit_align.models.tree_forward import TreeForward
from lit_align.types import Group, Tree
from tests.architectures import build
from tests.strategies import padded, padded_logps

D, F, LAYERS, HEADS, VOCABULARY = 128, 320, 3, 8, 2048
BODY = LAYERS * (
    2 * D * D + 2 * D * D // 2 + 3 * D * F
)  # q and o; k and v with half the heads; gate, up and down

TREES = [
    Tree(
        list(range(40)),
        [list(range(n)) for n in lengths],
        [[True] * n for n in lengths],
        Group("", [""] * len(lengths)),
    )
    for lengths in ((21, 30), (17, 12, 26), (35,))
]

# The counter knows fused attention on CUDA only; on CPU the shapes are the same.
ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: (
        sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
        sdpa_backward_flop_count(g, q, k, v)
    ),
}


@pytest.fixture(scope="module")
def model():
    model = build(
        "Llama",
        "sdpa",
        vocab_size=VOCABULARY,
        hidden_size=D,
        intermediate_size=F,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
    )
    model.lm_head.requires_grad_(False)
    return model


def counted(step):
    with FlopCounterMode(display=False, custom_mapping=ON_CPU) as counter:
        step().sum().backward()
    return counter.get_total_flops()


def expected(tokens, rows, length, heads, passes):
    """Two operations for each weight and token, in each of the forward pass, the gradient by inputs, and by weights.

    Attention is computed for every pair of columns: two products forward, five backward, because scores are recomputed.
    The head is met once forward and once backward by each of ``heads`` tokens.
    """
    attention = 7 * 2 * LAYERS * rows * length**2 * D
    return passes * 2 * BODY * tokens + attention + 2 * 2 * VOCABULARY * D * heads


@pytest.mark.parametrize("train_body", [True, False])
def test_a_packed_step_costs_what_its_trees_hold(model, train_body):
    """The body sees each prompt once, the head scored tokens only; frozen weights need no gradient of their own."""
    model.model.layers.requires_grad_(train_body)
    forward = TreeForward(model)
    trees = pack_rows([TREES[:2], TREES[2:]]).trees
    rows, length = trees.input_ids.shape
    should = expected(rows * length, rows, length, len(trees.target), passes=3 if train_body else 2)
    assert counted(lambda: forward(trees).logps) == pytest.approx(should, rel=0.001)


def test_an_ordinary_step_costs_a_prompt_for_each_response_and_a_head_for_each_token(model):
    model.model.layers.requires_grad_(True)
    rows, length = padded([TREES])[0].shape
    should = expected(rows * length, rows, length, rows * length, passes=3)
    assert counted(lambda: padded_logps(model, [TREES])) == pytest.approx(should, rel=0.001)


def test_unrolled_rows_are_what_sharing_saves(model):
    """Six responses to three prompts of 40 tokens: rows of 75 columns for each of them against two rows."""
    model.model.layers.requires_grad_(True)
    forward = TreeForward(model)
    forward.layout = "rows"
    trees = pack_rows([TREES[:2], TREES[2:]]).trees
    should = expected(6 * 75, 6, 75, len(trees.target), passes=3)
    assert counted(lambda: forward(trees).logps) == pytest.approx(should, rel=0.001)
    assert torch.equal(trees.owner.unique(), torch.arange(6))
