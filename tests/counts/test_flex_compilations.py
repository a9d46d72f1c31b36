"""How often FlexAttention and its block masks are compiled over rows of many lengths: a few times, then no more."""

from collections import Counter
from functools import partial
from types import SimpleNamespace

import torch
from torch._dynamo import config
from torch.nn.attention import flex_attention
from transformers.integrations.flex_attention import WrappedFlexAttention, flex_attention_forward

from lit_align.compat.flex_attention import RECOMPILE_LIMIT, compiled_create_block_mask
from lit_align.data.packing import pack
from lit_align.functional.trees import FLEX_BLOCK_SIZE
from lit_align.models.masks import build_mask
from lit_align.types import Group, Tree

MOST_MASKS = 4
MOST_ATTENTIONS = 4
"""One with the first length and one with any length, in training and outside of it."""
LENGTHS = (100, 300, 500, 200, 640, 900, 128, 400)
HEADS, KEY_HEADS, WIDTH = 2, 1, 16


def test_few_compilations_over_many_lengths(monkeypatch):
    counts = Counter()

    def count(graph, inputs):
        counts["attention" if "flex_attention" in graph.code else "mask"] += 1
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    monkeypatch.setattr(WrappedFlexAttention, "_instance", None)
    monkeypatch.setattr(WrappedFlexAttention, "_is_flex_compiled", False)
    compiled_create_block_mask.cache_clear()
    torch._dynamo.reset()
    # on a CPU masks are not compiled
    compiled = compiled_create_block_mask()
    monkeypatch.setattr(flex_attention, "create_block_mask", compiled)
    text_config = SimpleNamespace(_attn_implementation="flex_attention")
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text_config))
    for length in LENGTHS:
        tree = Tree(
            [1] * (length - 20), [[2] * 10, [3] * 10], [[True] * 10] * 2, Group("", ["", ""])
        )
        (batch,) = pack([tree], 1024, multiple=FLEX_BLOCK_SIZE)
        for training in (True, False):
            with torch.set_grad_enabled(training):
                _attend(
                    build_mask(model, batch.trees, None), batch.trees.input_ids.shape[1], training
                )
    compiled_create_block_mask.cache_clear()
    assert 1 <= counts["mask"] <= MOST_MASKS
    assert 1 <= counts["attention"] <= MOST_ATTENTIONS
    assert config.recompile_limit >= RECOMPILE_LIMIT


def _attend(mask, length: int, training: bool) -> None:
    query = torch.randn(1, HEADS, length, WIDTH)  # without gradient, which a CPU refuses
    key, value = torch.randn(2, 1, KEY_HEADS, length, WIDTH)
    flex_attention_forward(
        SimpleNamespace(training=training), query, key, value, mask, scaling=0.25
    )
