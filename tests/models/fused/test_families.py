"""Fused or not, every family gives the outputs and the gradients of PEFT's and transformers' own code."""

import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.models.adapter_set import AdapterSet
from lit_align.models.fused import fuse, unfuse
from lit_align.models.load import disable_dropout
from lit_align.models.lora import Lora
from tests import families

FAMILIES = {
    "Llama": set(),
    "Mistral": set(),
    "Qwen2": set(),  # biases
    "Qwen3": set(),  # norms of queries and keys
    "Gemma2": set(),  # 1 + w, GELU, a soft cap
    "Gemma3Text": set(),
    "SmolLM3": set(),  # layers without a rotary embedding
    "Phi3": {"Phi3Attention", "Phi3MLP"},  # fused projections
    "Olmo2": {"Olmo2Attention", "Olmo2RMSNorm"},
    "GPT2": {"GPT2Attention", "GPT2MLP", "LayerNorm"},  # transposed weights
    "Qwen3Moe": {"ParamWrapper"},
    "DeepseekV3": {"ParamWrapper"},
    "Qwen3Next": {"Qwen3NextAttention", "Qwen3NextRMSNormGated", "ParamWrapper"},
}
"""Families with the classes of their layers that keep their own forward pass."""

TOLERANCE = {torch.float32: 5e-6, torch.float64: 5e-7}
"""Relative; transformers computes norms in float32 even in a model of float64."""

KINDS = [(family, torch.float32) for family in FAMILIES]
KINDS += [(family, torch.float64) for family in FAMILIES if "ParamWrapper" not in FAMILIES[family]]
"""Experts have no product in float64."""

few = settings(max_examples=3, deadline=None, derandomize=True)


@functools.cache
def adapted(family, dtype):
    """Two copies of a model with a random adapter: fused, and not."""
    model = families.build(family).to(dtype).requires_grad_(False)
    disable_dropout(model)
    fused = AdapterSet(model, Lora(r=4, alpha=12), gradient_checkpointing=False).train()
    random = torch.Generator().manual_seed(0)
    for parameter in fused.trainable().values():
        parameter.data = torch.randn(parameter.shape, generator=random, dtype=dtype) / 8
    own = copy.deepcopy(fused)
    unfuse(own.peft)
    return fused, own


def step(adapters, ids, direction):
    """The logits, and the gradients of their product with ``direction``."""
    adapters.zero_grad()
    logits = adapters.model(ids, use_cache=False).logits
    if torch.is_grad_enabled():
        (logits * direction).sum().backward()
    parameters = adapters.trainable().values()
    return logits.detach(), [p.grad for p in parameters if p.grad is not None]


def assert_close(actual, expected, dtype):
    """Relative to the whole: roundings of a large part reach the small ones."""
    assert actual.isfinite().all()
    error = (actual - expected).norm() / expected.norm()
    assert error < TOLERANCE[dtype], f"relative error {error:.2g}"


@pytest.mark.parametrize(("family", "dtype"), KINDS)
@few
@given(rows=st.integers(1, 3), length=st.integers(1, 20), seed=st.integers(0, 99))
def test_outputs_and_gradients_are_those_of_the_own_code(family, dtype, rows, length, seed):
    fused, own = adapted(family, dtype)
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, families.VOCABULARY, (rows, length), generator=random)
    direction = torch.randn(rows, length, families.VOCABULARY, generator=random, dtype=dtype)
    logits, gradients = step(fused, ids, direction)
    own_logits, own_gradients = step(own, ids, direction)
    assert_close(logits, own_logits, dtype)
    assert len(gradients) == len(own_gradients) > 0
    assert_close(
        torch.cat([gradient.flatten() for gradient in gradients]),
        torch.cat([gradient.flatten() for gradient in own_gradients]),
        dtype,
    )
    for role in ("policy", "reference"):
        with torch.no_grad(), fused.activate(role), own.activate(role):
            assert_close(step(fused, ids, None)[0], step(own, ids, None)[0], dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_fused_is_named(family):
    fused, _ = adapted(family, torch.float32)
    assert fused.fusion.obstacles.keys() == FAMILIES[family]
    assert all(name in str(fused.fusion) for name in FAMILIES[family])
    assert sum(fused.fusion.fused.values()) > 0


def test_a_model_is_given_back_as_it_was():
    model = families.build("Llama").requires_grad_(False)
    adapters = AdapterSet(model, Lora(r=4), gradient_checkpointing=False)
    names = adapters.state_dict().keys()
    replaced = [module for module in adapters.modules() if "forward" in vars(module)]
    assert len(replaced) == sum(adapters.fusion.fused.values())
    unfuse(adapters.peft)
    assert not any("forward" in vars(module) for module in adapters.modules())
    fuse(adapters.peft, ["policy"])
    assert adapters.state_dict().keys() == names
