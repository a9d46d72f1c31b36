"""A base that is divided among processes takes the memory of a share on each, and of the two layers in use."""

import pytest
import torch
from transformers import LlamaConfig

from lit_align.memory.planner import MemoryPlanner, Plan
from lit_align.models.load import Base
from lit_align.models.lora import Lora

LAYERS, WIDTH, INTERMEDIATE, WORDS = 16, 64, 128, 1000
LAYER = 4 * (4 * WIDTH**2 + 3 * WIDTH * INTERMEDIATE)  # bytes of its matrices


def weights(shards):
    config = LlamaConfig(
        num_hidden_layers=LAYERS, hidden_size=WIDTH, intermediate_size=INTERMEDIATE,
        num_attention_heads=4, num_key_value_heads=4, vocab_size=WORDS,
    )  # fmt: skip
    plan = Plan(Base("unread", "none", "float32"), Lora(r=4), 256, 4, 64, shards=shards)
    phases = MemoryPlanner(config, torch.device("cpu")).phases(plan)
    (size,) = {memory.weights for memory in phases.values()}
    return size


@pytest.mark.parametrize("shards", [2, 4, 16])
def test_each_process_has_a_share_and_two_layers(shards):
    assert weights(1) - weights(shards) == LAYER * (LAYERS - LAYERS // shards - 2)


def test_all_layers_are_the_most_there_can_be():
    assert weights(1) == 4 * (2 * WORDS * WIDTH + (2 * LAYERS + 1) * WIDTH) + LAYERS * LAYER
