"""What is predicted is what a GPU allocates, with random weights. Not run by us: it needs one."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lit_align.memory.planner import MemoryPlanner, Plan
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.generate import sample
from lit_align.models.load import Base, load_config, load_model
from lit_align.models.tree_forward import TreeForward
from tests.models.test_memory import llama_8b, packed
from tests.tiny import tokenizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def llama_1b5():
    return LlamaConfig(
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        vocab_size=151936,
        tie_word_embeddings=True,
    )


@pytest.mark.parametrize("config", [llama_1b5, llama_8b])
def test_ppo_allocates_what_was_predicted(config, tmp_path):
    device = torch.device("cuda", 0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            LlamaForCausalLM(config()).save_pretrained(tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.cuda.empty_cache()
    base, lora = Base(str(tmp_path), dtype="bfloat16"), Lora()
    adapters = AdapterSet(
        load_model(base, device), lora, trained_roles=("policy", "critic"), head_sizes={"critic": 1}
    ).train()
    optimizer = torch.optim.AdamW(adapters.trainable().values())
    read, trees = TreeForward(adapters.model), packed(512, [512], 2).trees.to(device)

    def learn():
        loss = read(trees).logps.sum()
        with adapters.activate("critic", True):
            loss = loss + adapters.head("critic")(read.hidden(trees)).square().sum()
        loss.backward()
        optimizer.step()

    def ask(new):
        asked = [list(range(5, 517))] * 32
        with adapters.activate("policy", training=False) as model:
            sample(model, tokenizer(), asked, max_new_tokens=new, batch_size=32, token_budget=2048)

    @torch.no_grad()
    def score():
        with adapters.activate("policy", training=False):
            read(trees, statistics=True)

    learn()  # makes the moments
    optimizer.zero_grad()
    measured = {}
    for phase, run in {
        "prefill": lambda: ask(1),
        "sampling": lambda: ask(512),
        "score": score,
        "update": learn,
    }.items():
        torch.cuda.reset_peak_memory_stats()
        run()
        measured[phase] = torch.cuda.max_memory_allocated()
    plan = Plan(base, lora, 2048, 32, 512, trained=2, num_generations=1, max_new_tokens=512)
    memory = {
        name: one.total for name, one in MemoryPlanner(load_config(base)).phases(plan).items()
    }
    found = {name: memory[name] for name in ("prefill", "score", "update")}
    found["sampling"] = max(memory["prefill"], memory["decode"])
    assert found == pytest.approx(measured, rel=0.1)
