"""PEFT's private switches of LoRA layers, and why its public ones do not do; fails when PEFT changes."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lit_align.compat.peft import adapter_layers, parameter_belongs_to, switch_adapter
from tests.architectures import build

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def peft():
    """Two adapters, policy and critic, that both change the base; the policy is trained."""
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(build("Llama"), config, adapter_name="policy")
    model.add_adapter("critic", config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.2, generator=generator)
    return model.eval()


def trained(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def test_a_switched_layer_computes_as_after_the_public_switch(peft):
    layers = adapter_layers(peft)
    outputs = {}
    for adapter in ("policy", "critic", None):
        switch_adapter(layers, adapter)
        outputs[adapter] = logits(peft)
    switch_adapter(layers, "policy")
    for adapter in ("policy", "critic"):
        peft.set_adapter(adapter)
        assert torch.equal(outputs[adapter], logits(peft))
    with peft.disable_adapter():
        assert torch.equal(outputs[None], logits(peft))
    assert not torch.equal(outputs["policy"], outputs["critic"])
    assert not torch.equal(outputs["policy"], outputs[None])


def test_switching_moves_no_requires_grad(peft):
    before = trained(peft)
    assert before
    assert all(parameter_belongs_to(name, "policy") for name in before)
    for adapter in ("critic", None, "policy"):
        switch_adapter(adapter_layers(peft), adapter)
        assert trained(peft) == before


def test_the_public_switches_move_requires_grad(peft):
    """If this fails, PEFT's own switches can be used."""
    before = trained(peft)
    peft.set_adapter("critic")
    assert trained(peft) != before
