"""Attention is chosen by time among what reads trees right; timing changes nothing that is learned."""

import pytest
import torch

from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.load import Base, cache_root, load_model
from lit_align.models.tree_forward import TreeForward
from lit_align.stages.attention_choice import AttentionProbe, fastest, remembered_choice

BOTH = (
    "sdpa",
    "eager",
)  # a CPU compiles FlexAttention for a minute, and has no backward pass of it


@pytest.fixture
def probe(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_ALIGN_CACHE", str(tmp_path))
    adapters = AdapterSet(load_model(Base(str(tiny), "none", "float32")), Lora(r=4, dropout=0.1))
    return AttentionProbe(adapters, TreeForward(adapters.model), 600, torch.device("cpu"))


def test_timing_leaves_weights_gradients_modes_and_random_numbers_alone(probe):
    weights = probe.adapters.trainable()
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    state, training = torch.get_rng_state(), probe.adapters.peft.training
    for attention in BOTH:
        assert probe.seconds(attention) > 0
        assert probe.adapters.model.config._attn_implementation == attention
    assert all(weight.grad is None for weight in weights.values())
    assert all(torch.equal(weight, before[name]) for name, weight in weights.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert probe.adapters.peft.training == training


def test_the_faster_one_is_chosen_and_remembered(probe):
    times = {"sdpa": 2.0, "eager": 1.0}
    assert remembered_choice(probe, times.__getitem__, BOTH) == "eager"
    probe.adapters.model.set_attn_implementation("sdpa")
    assert remembered_choice(probe, {}.__getitem__, BOTH) == "eager"
    (file,) = (cache_root() / "attention").glob("*.json")
    for broken in ("{", '{"attention": "another"}'):
        file.write_text(broken)
        probe.adapters.model.set_attn_implementation("sdpa")
        assert remembered_choice(probe, {"sdpa": 1.0, "eager": 3.0}.__getitem__, BOTH) == "sdpa"


def test_one_that_reads_trees_wrong_is_left_out(probe, monkeypatch):
    def is_wrong(self, forward):
        attention = probe.adapters.model.config._attn_implementation
        return "log-probabilities are off by 1" if attention == "eager" else None

    monkeypatch.setattr("lit_align.models.tree_check.TreeCheck.find_error", is_wrong)
    assert remembered_choice(probe, {"sdpa": 2.0, "eager": 1.0}.__getitem__, BOTH) == "sdpa"


def test_one_with_another_gradient_is_left_out(probe, monkeypatch):
    usual, other = probe.gradient("sdpa"), probe.gradient("eager")
    assert usual.norm() > 0
    assert (other - usual).norm() < 1e-5 * usual.norm()
    gradients = {"sdpa": usual, "eager": usual * 1.01}
    monkeypatch.setattr(AttentionProbe, "gradient", lambda self, name: gradients[name])
    assert remembered_choice(probe, {"sdpa": 2.0, "eager": 1.0}.__getitem__, BOTH) == "sdpa"


def test_one_that_cannot_run_is_left_out():
    def seconds(name):
        if name == "sdpa":
            return 1.0
        raise NotImplementedError("no backward pass on this device")

    assert fastest(BOTH, seconds) == "sdpa"
    assert fastest(BOTH, {}.__getitem__) == "sdpa"
