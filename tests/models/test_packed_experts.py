"""Experts in 4 bits: the same numbers as with weights that were packed and dequantized by bitsandbytes."""

import copy

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch.nn.utils import parametrize

from lit_align.compat.packed_experts import packed_weights
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.inventory import NF4, Inventory
from lit_align.models.load import Base, load_model
from lit_align.models.lora import Lora
from lit_align.models.merging import merge_weights
from tests import families, family_runs

CPU = torch.device("cpu")
IDS = torch.arange(5, 45).reshape(2, 20)
ROUNDING = 1e-5  # of a logit, in float32


@pytest.fixture(params=["Qwen3Moe", "GptOss", "GraniteMoe", "JetMoe"])
def folder(request, tmp_path):
    torch.manual_seed(0)
    return family_runs.save(request.param, tmp_path)


def base(folder):
    return load_model(Base(str(folder), "nf4", "float32"), CPU)


def roundtrip(weight):
    packed = quantize_4bit(weight.contiguous(), compress_statistics=True, quant_type="nf4")
    return dequantize_4bit(*packed)


def dequantized(folder):
    """The model with the same numbers in weights that are whole."""
    model = load_model(Base(str(folder), "none", "float32"), CPU)
    inventory = Inventory.from_config(model.config, Lora(), nf4=True, dtype=torch.float32)
    with torch.no_grad():
        for layer in inventory.layers:
            if layer.name in inventory.four_bit:
                name = f"{layer.name}.weight" if layer.in_module else layer.name
                weight = model.get_parameter(name)
                weight.copy_(roundtrip(weight))
    return model


def trained(model, gradient_checkpointing=False):
    """Two adapters with random weights."""
    adapters = AdapterSet(
        model,
        Lora(r=4),
        trained_roles=("policy", "critic"),
        gradient_checkpointing=gradient_checkpointing,
    )
    generator = torch.Generator().manual_seed(1)
    for _, weight in sorted(adapters.trainable().items()):
        weight.data.normal_(0, 0.05, generator=generator)
    return adapters


def logits(adapters, role):
    with torch.no_grad(), adapters.activate(role, training=False) as model:
        return model(input_ids=IDS).logits


def test_outputs_and_gradients_are_those_of_dequantized_weights(folder):
    packed, whole = trained(base(folder)), trained(dequantized(folder))
    assert packed_weights(packed.model)
    assert not packed_weights(whole.model)
    for role in ("policy", "critic", "reference"):
        torch.testing.assert_close(
            logits(packed, role), logits(whole, role), atol=ROUNDING, rtol=ROUNDING
        )
    for adapters in (packed, whole):
        with adapters.activate("policy") as model:
            model(input_ids=IDS).logits.square().mean().backward()
    for name, weight in packed.trainable().items():
        expected = whole.trainable()[name].grad
        if expected is not None:
            torch.testing.assert_close(weight.grad, expected, atol=ROUNDING, rtol=1e-3)


def test_an_adapter_is_added_once_however_often_the_model_is_called(folder):
    adapters = trained(base(folder))
    first = logits(adapters, "policy")
    assert not torch.equal(first, logits(adapters, "reference"))
    for _ in range(3):
        assert torch.equal(logits(adapters, "policy"), first)


def test_a_copy_has_adapters_of_its_own(folder):
    adapters = trained(base(folder))
    expected = logits(adapters, "policy")
    copied = copy.deepcopy(adapters)
    for weight in adapters.trainable().values():
        weight.data.zero_()
    assert torch.equal(logits(copied, "policy"), expected)


def test_merged_experts_are_whole_again(folder):
    adapters = trained(base(folder))
    expected = logits(adapters, "policy")
    merged = merge_weights(adapters, "policy")
    assert not packed_weights(merged)
    assert {weight.dtype for weight in merged.parameters()} == {torch.float32}
    torch.testing.assert_close(merged(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)


def test_experts_take_the_bytes_that_the_inventory_says(tmp_path):
    family_runs.save("Mixtral", tmp_path)
    for packed in packed_weights(base(tmp_path)):
        chain = packed.module.parametrizations[packed.name]
        state = chain[0].quant_state
        assert chain.original.numel() == state.shape.numel() / 2
        scales = state.absmax.numel() + 4 * state.state2.absmax.numel()
        stored = chain.original.numel() + scales
        assert stored == pytest.approx(NF4 * state.shape.numel(), rel=0.01)


def test_no_dequantized_experts_stay_after_a_checkpointed_step(tmp_path):
    family_runs.save("Qwen3Moe", tmp_path)
    adapters = trained(base(tmp_path), gradient_checkpointing=True).train()
    with adapters.activate("policy") as model:
        model(input_ids=IDS).logits.square().mean().backward()
    assert (parametrize._cache_enabled, len(parametrize._cache)) == (0, 0)
    for packed in packed_weights(adapters.model):
        assert len(packed.module.parametrizations[packed.name]) == 1


def test_experts_of_a_model_that_is_stored_in_4_bits_are_packed_too(tmp_path):
    """Transformers stores linear layers in 4 bits, and stacked weights whole."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    family_runs.save("Mixtral", tmp_path / "whole")
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    stored = AutoModelForCausalLM.from_pretrained(
        tmp_path / "whole", quantization_config=settings, dtype=torch.float32
    )
    stored.save_pretrained(tmp_path / "stored")
    model = base(tmp_path / "stored")
    assert len(packed_weights(model)) == 4
    assert trained(model).inventory().adapted


@pytest.mark.parametrize("family", families.MIXTURES)
def test_all_stacked_experts_are_in_4_bits(family):
    config = families.config(family)
    inventory = Inventory.from_config(config, Lora(), nf4=True, dtype=torch.bfloat16)
    experts = [layer for layer in inventory.layers if layer.kind == "experts"]
    assert experts
    assert {layer.name for layer in experts} <= inventory.four_bit
