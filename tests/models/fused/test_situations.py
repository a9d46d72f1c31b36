"""Where a fused form does not apply, a layer computes by its own code, and nothing changes but the speed."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lit_align.models.adapter_set import AdapterSet
from lit_align.models.fused import expected_fusion, fuse, unfuse
from lit_align.models.layers import model_without_weights
from lit_align.models.load import Base, load_model
from lit_align.models.lora import Lora
from tests.models.fused.test_families import step

CPU = torch.device("cpu")


def adapted(path, quantization="none", dtype="float32", gradient_checkpointing=False, **lora):
    base = load_model(Base(path, quantization, dtype), CPU)
    settings = Lora(r=4, alpha=12, **lora)
    adapters = AdapterSet(base, settings, gradient_checkpointing=gradient_checkpointing).train()
    random = torch.Generator().manual_seed(0)
    for parameter in adapters.trainable().values():
        parameter.data.normal_(0, 0.1, generator=random)
    return adapters


def assert_same_step(fused, own, ids, tolerance=5e-6):
    """Both with the random numbers of one seed."""
    results = []
    for adapters in (fused, own):
        torch.manual_seed(3)
        logits, gradients = step(adapters, ids, torch.linspace(-1, 1, 128))
        results.append([logits, *gradients])
    assert len(results[0]) == len(results[1]) > 1
    for actual, expected in zip(*results, strict=True):
        error = (actual - expected).norm() / expected.norm().clamp(min=1e-6)
        assert error < tolerance, f"relative error {error:.2g}"


def own_copy(adapters):
    """A copy by the code of transformers and PEFT alone."""
    own = copy.deepcopy(adapters)
    unfuse(own.peft)
    return own


def layer_of(adapters, name):
    return adapters.model.get_submodule(f"model.layers.0.{name}")


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize(
    ("quantization", "dtype", "tolerance"),
    [("none", "float32", 5e-6), ("nf4", "float32", 5e-6), ("nf4", "bfloat16", 5e-2)],
)
def test_a_step_on_each_kind_of_base(
    tiny, ids, quantization, dtype, tolerance, gradient_checkpointing
):
    """In bfloat16, which keeps 8 bits, PEFT computes the adapter in float32: they differ by roundings of both."""
    fused = adapted(tiny, quantization, dtype, gradient_checkpointing)
    assert fused.fusion.obstacles == {}
    own = adapted(tiny, quantization, dtype)
    unfuse(own.peft)
    assert_same_step(fused, own, ids, tolerance)


def test_half_precision_is_as_close_to_the_truth_as_peft(tiny, ids):
    """The truth is the same adapter on the same weights in float32."""
    fused = adapted(tiny, "none", "bfloat16")
    own, true = own_copy(fused), own_copy(fused)
    true.model.float()
    direction = torch.linspace(-1, 1, 128)
    _, expected = step(true, ids, direction)
    errors = []
    for adapters in (fused, own):
        _, gradients = step(adapters, ids, direction)
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        pairs = zip(gradients, expected, strict=True)
        errors.append(sum((actual - right).square().sum() for actual, right in pairs).sqrt())
    assert errors[0] < 1.25 * errors[1]


def test_dropout_on_an_adapter(tiny, ids):
    fused = adapted(tiny, dropout=0.3)
    expected = expected_fusion(model_without_weights(fused.model.config), Lora(dropout=0.3))
    assert "adapters (lora.dropout is 0.3)" in str(expected)
    assert "its adapter has dropout" in str(fused.fusion)
    own = own_copy(fused)
    assert_same_step(fused, own, ids)
    assert_same_step(fused.eval(), own.eval(), ids)


@pytest.mark.parametrize("change", ["use_dora", "lora_bias", "rank_pattern"])
def test_other_kinds_of_adapters(tiny, ids, change):
    from peft import LoraConfig, get_peft_model

    value = {"q_proj": 2, "up_proj": 7} if change == "rank_pattern" else True
    targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **{change: value})
    base = load_model(Base(tiny, "none", "float32"), CPU)
    for layer in base.modules():  # an adapter's bias needs one of the base to be merged into
        if isinstance(layer, nn.Linear) and change == "lora_bias":
            layer.bias = nn.Parameter(torch.ones(layer.out_features), requires_grad=False)
    own = get_peft_model(base, config).train()
    fused = copy.deepcopy(own)
    fusion = fuse(fused, ["default"])
    assert ("Linear" in fusion.obstacles) == (change != "rank_pattern")
    results = []
    for peft in (fused, own):
        logits = peft(ids, use_cache=False).logits
        (logits * torch.linspace(-1, 1, 128)).sum().backward()
        results.append([logits, *(p.grad for p in peft.parameters() if p.grad is not None)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_several_adapters_at_once_and_merged_ones(tiny, ids):
    fused = adapted(tiny)
    fused.add_frozen("other", copy.deepcopy(fused.lora_config("policy")))
    own = own_copy(fused)
    for adapters in (fused, own):
        adapters.peft.base_model.set_adapter(["policy", "other"])
    assert_same_step(fused, own, ids)
    for adapters in (fused, own):
        adapters.peft.merge_adapter(["policy"])
    with torch.no_grad():
        torch.testing.assert_close(fused.model(ids).logits, own.model(ids).logits)


def test_autocast_is_left_to_peft(tiny, ids):
    fused = adapted(tiny)
    own = own_copy(fused)
    with torch.autocast("cpu", torch.bfloat16):
        logits, own_logits = fused.model(ids).logits, own.model(ids).logits
    torch.testing.assert_close(logits, own_logits, rtol=0.02, atol=0.05)
    assert_same_step(fused, own, ids)


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "mlp.act_fn",
        "mlp.up_proj",
        "mlp.down_proj.base_layer",
        "self_attn.k_proj",
        "self_attn.k_proj.lora_B.policy",
        "self_attn.v_proj.base_layer",
        "input_layernorm",
    ],
)
def test_hooks_see_and_change_what_a_layer_computes(tiny, ids, name):
    fused = adapted(tiny)
    own, calls = own_copy(fused), []
    expected = fused.model(ids).logits

    def double(module, inputs, output):
        calls.append(module)
        return 2 * output

    for adapters in (fused, own):
        layer_of(adapters, name).register_forward_hook(double)
    assert_same_step(fused, own, ids)
    assert calls == [layer_of(fused, name), layer_of(own, name)]
    assert not torch.allclose(fused.model(ids).logits, expected)


def test_projections_are_shared_inside_a_pass_and_nowhere_else(tiny):
    """A layer that is called alone, or with another input, or twice, computes for itself."""
    fused = adapted(tiny)
    own = own_copy(fused)
    x, other = torch.randn(2, 1, 5, 64)
    for input_of_key in (x, other):
        query = layer_of(fused, "self_attn.q_proj")(x)
        key = layer_of(fused, "self_attn.k_proj")(input_of_key)
        torch.testing.assert_close(query, layer_of(own, "self_attn.q_proj")(x))
        torch.testing.assert_close(key, layer_of(own, "self_attn.k_proj")(input_of_key))
    attention = layer_of(fused, "self_attn").forward
    shared = attention.shared
    with shared:
        query = layer_of(fused, "self_attn.q_proj")
        query(x)
        for input_of_key in (other, x, x):
            key = layer_of(fused, "self_attn.k_proj")(input_of_key)
            torch.testing.assert_close(key, layer_of(own, "self_attn.k_proj")(input_of_key))
    assert shared.take(layer_of(fused, "self_attn.v_proj"), x) is None


def test_an_error_inside_a_pass_leaves_nothing_behind(tiny, ids):
    fused = adapted(tiny)

    def fail(module, inputs):
        raise RuntimeError("stop")

    handle = layer_of(fused, "self_attn.v_proj").register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        fused.model(ids)
    handle.remove()
    assert_same_step(fused, own_copy(fused), ids)


@pytest.mark.parametrize("reload", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copied_model_computes_with_its_own_weights(tiny, ids, reload):
    fused = adapted(tiny)
    again = reload(fused.peft)
    before = fused.model(ids).logits
    assert torch.equal(again(ids).logits, before)
    for name, parameter in again.named_parameters():
        if "lora_" in name:
            parameter.data.zero_()
    assert torch.equal(fused.model(ids).logits, before)
    assert not torch.allclose(again(ids).logits, before)


def test_weights_that_changed_before_the_backward_pass_are_noticed(tiny, ids):
    fused = adapted(tiny)
    loss = fused.model(ids).logits.sum()
    with torch.no_grad():
        for parameter in fused.trainable().values():
            parameter.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
