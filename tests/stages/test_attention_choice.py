"""Attention is chosen by time among what reads trees right; timing changes nothing that is learned."""

import pytest
import torch

from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.load import Base, load_model
from lit_align.models.tree_forward import TreeForward
from lit_align.stages.attention_choice import CANDIDATES, AttentionProbe, fastest, remembered_choice


@pytest.fixture
def probe(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_ALIGN_CACHE", str(tmp_path))
    adapters = AdapterSet(load_model(Base(str(tiny), "none", "float32")), Lora(r=4, dropout=0.1))
    return AttentionProbe(adapters, TreeForward(adapters.model), 600, torch.device("cpu"))


def test_timing_leaves_weights_gradients_modes_and_random_numbers_alone(probe):
    weights = probe.adapters.trainable()
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    state, training = torch.get_rng_state(), probe.adapters.peft.training
    assert probe.seconds("sdpa") > 0
    assert probe.adapters.model.config._attn_implementation == "sdpa"
    assert all(weight.grad is None for weight in weights.values())
    assert all(torch.equal(weight, before[name]) for name, weight in weights.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert probe.adapters.peft.training == training


def test_the_faster_one_is_chosen_and_remembered(probe):
    times = {"sdpa": 2.0, "flex_attention": 1.0}
    tried = []

    def seconds(name):
        tried.append(name)
        return times[name]

    chosen = remembered_choice(probe, seconds)
    assert chosen == fastest(tried, times.__getitem__)
    assert tried[0] == "sdpa"
    probe.adapters.model.set_attn_implementation("sdpa")
    assert remembered_choice(probe, {}.__getitem__) == chosen
    (file,) = (path for path in _cache(probe).iterdir() if path.suffix == ".json")
    file.write_text("{")
    assert remembered_choice(probe, {"sdpa": 1.0}.__getitem__) == "sdpa"


def test_one_that_cannot_run_is_left_out(probe):
    def seconds(name):
        if name == "sdpa":
            return 1.0
        raise NotImplementedError("no backward pass on this device")

    assert remembered_choice(probe, seconds) == "sdpa"
    assert fastest(CANDIDATES, {}.__getitem__) == "sdpa"


def _cache(probe):
    from lit_align.models.load import cache_root

    return cache_root() / "attention"
