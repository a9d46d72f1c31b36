import functools
import warnings

import pytest
import torch
from hypothesis import example, given, settings
from peft import LoraConfig, get_peft_model
from torch.nn.functional import logsigmoid

from lit_align.data.packing import pack_rows
from lit_align.errors import ModelError
from lit_align.functional.logps import sum_by_response
from lit_align.functional.trees import attention_mask
from lit_align.models import masks
from lit_align.models.tree_forward import TreeForward
from lit_align.types import Group, Tree
from tests.architectures import build
from tests.strategies import layouts, padded_logps

GROUP = Group("", ["", "", ""])
ROWS = [
    [
        Tree(
            [3, 1, 4, 1, 5, 9, 2],
            [[6, 5], [3, 5, 8], [9]],
            [[True] * 2, [True, False, True], [True]],
            GROUP,
        )
    ],
    [
        Tree([2, 7], [[1, 8]], [[True] * 2], GROUP),
        Tree([1], [[4, 1], [4, 2, 1]], [[True] * 2, [True] * 3], GROUP),
    ],
]

few = settings(max_examples=12, deadline=None, derandomize=True)

PACKED = [
    ("Llama", "sdpa"),
    ("Llama, tied", "eager"),
    ("Qwen2, one layer windowed", "sdpa"),
    ("Qwen3", "sdpa"),
    ("Gemma2", None),
    ("Gemma3", "sdpa"),
    ("Gemma3", "eager"),
    ("Mistral", "sdpa"),
    ("Mistral, windowed", "sdpa"),
    ("Mistral, windowed", "eager"),
    ("Mixtral, windowed", "sdpa"),
    ("Phi, biased head", "sdpa"),
    ("Granite", "sdpa"),
    ("Cohere", "sdpa"),
    ("GPT-2", "sdpa"),
    ("OPT", "sdpa"),
]
UNROLLED = [
    ("MPT", "log-probabilities are off"),
    ("Bloom", "ValueError: too many values"),
    ("LFM2", "layers include conv"),
    ("Mamba", "layers include linear_attention"),
    ("Qwen3-Next", "layers include linear_attention"),
]


@functools.cache
def settled(name, attention=None):
    """A probed `TreeForward`, and what it warned of."""
    forward = TreeForward(build(name, attention))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        forward.check()
    return forward, [
        str(warning.message) for warning in said if "model type" in str(warning.message)
    ]


def loss_of(logps, trees):
    """As mixed as an alignment loss: a preference over sums, and a weighted likelihood of tokens."""
    weights = torch.linspace(0.5, 1.5, len(logps))
    return (
        -logsigmoid(sum_by_response(logps, trees.owner, trees.responses) / 10).sum()
        - (weights * logps).mean()
    )


def gradients(model, loss):
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return {name: g for name, g in zip(wanted, found, strict=True) if g is not None}


def assert_same_step(forward, model, rows, tolerance=1e-5):
    """Loss and every gradient, against ordinary logits over padded rows."""
    trees = pack_rows(rows).trees
    packed, ordinary = forward(trees).logps, padded_logps(model, rows)
    got, right = loss_of(packed, trees), loss_of(ordinary, trees)
    assert abs(got - right) <= tolerance * abs(right)
    by_packed, by_ordinary = gradients(model, got), gradients(model, right)
    assert by_packed.keys() == by_ordinary.keys()
    whole = torch.stack([g.norm() for g in by_ordinary.values()]).norm()
    off = {name: (by_packed[name] - g).norm() for name, g in by_ordinary.items()}
    assert torch.stack(list(off.values())).norm() <= tolerance * whole
    for name, gradient in by_ordinary.items():
        if gradient.norm() > 1e-2 * whole:
            assert off[name] <= tolerance * gradient.norm(), name


@pytest.mark.parametrize(("name", "attention"), PACKED)
@few
@given(rows=layouts())
@example(rows=ROWS)
def test_packed_trees_give_the_loss_and_gradients_of_padded_rows(name, attention, rows):
    forward, said = settled(name, attention)
    assert (forward.layout, forward.head, said) == ("trees", "fused", [])
    assert_same_step(forward, forward.model, rows)


@pytest.mark.parametrize(("name", "reason"), UNROLLED)
def test_models_that_cannot_read_trees_are_unrolled(name, reason):
    forward, said = settled(name)
    assert (forward.layout, forward.head) == ("rows", "fused")
    (warning,) = said
    assert f"model type {forward.model.config.model_type}" in warning
    assert reason in warning
    assert_same_step(forward, forward.model, ROWS)


@pytest.mark.parametrize("name", ["Llama", "Gemma3", "OPT"])
@few
@given(rows=layouts())
@example(rows=ROWS)
def test_unrolled_rows_give_the_same_step(name, rows):
    forward = TreeForward(settled(name, "sdpa")[0].model)
    forward.layout = "rows"
    assert_same_step(forward, forward.model, rows)


@few
@given(rows=layouts())
@example(rows=ROWS)
def test_a_head_that_is_more_than_a_linear_layer_computes_all_logits(rows):
    """HyperCLOVAX multiplies by the setting that Granite divides by."""
    forward, (warning,) = settled("HyperCLOVAX")
    assert (forward.layout, forward.head) == ("trees", "plain")
    assert (
        "the head of 'HyperCLOVAXForCausalLM' (model type hyperclovax) is more than a linear layer"
        in warning
    )
    assert_same_step(forward, forward.model, rows)


def test_statistics_are_the_same_by_either_head():
    forward = TreeForward(settled("Gemma2")[0].model)
    trees = pack_rows(ROWS).trees
    fused = forward(trees, statistics=True)
    forward.head = "plain"
    plain = forward(trees, statistics=True)
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(one, other)
    detached = plain.entropy, plain.mean_logit, plain.top1, plain.collision
    assert not any(part.requires_grad for part in detached)


def test_a_response_without_tokens_does_no_harm():
    tree = Tree([1, 2, 3], [[4, 5], []], [[True, True], []], GROUP)
    for layout in ("trees", "rows"):
        forward = TreeForward(settled("Llama", "sdpa")[0].model)
        forward.layout = layout
        trees = pack_rows([[tree]]).trees
        logps = forward(trees).logps
        torch.testing.assert_close(
            logps,
            padded_logps(forward.model, [[tree._replace(responses=[[4, 5]], scored=[[True] * 2])]]),
        )
        assert all(
            g.isfinite().all() for g in gradients(forward.model, loss_of(logps, trees)).values()
        )


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "lm_head"]])
def test_adapters_are_read_too(targets):
    peft = get_peft_model(
        build("Llama"), LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    )
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    forward = TreeForward(peft.get_base_model())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        forward.check()
    assert (forward.layout, forward.head) == (
        "trees",
        "fused" if targets == "all-linear" else "plain",
    )
    assert len(said) == (forward.head == "plain")
    assert_same_step(forward, peft, ROWS)


def test_half_precision_rounds_and_no_more():
    """A bfloat16 pass keeps 8 bits of every activation: packed and padded differ by a few such roundings."""
    forward = TreeForward(build("Llama").bfloat16())
    forward.check()
    assert (forward.layout, forward.head) == ("trees", "fused")
    assert_same_step(forward, forward.model, ROWS, tolerance=3e-2)


@pytest.mark.parametrize("name", ["Llama", "Gemma2", "Gemma3", "Mistral, windowed", "OPT"])
@torch.no_grad()
def test_flex_attention_is_given_blocks(name):
    """Without gradient, which FlexAttention only has on CUDA."""
    forward = TreeForward(build(name, "flex_attention"))
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forward.check()
        logps = forward(pack_rows(ROWS).trees).logps
    assert (forward.layout, forward.head) == ("trees", "fused")
    torch.testing.assert_close(
        logps, padded_logps(settled(name, "eager")[0].model, ROWS), rtol=1e-5, atol=1e-5
    )


# ---------------------------------------------------------------------- the probe


def test_the_probe_sees_windows_wider_than_itself(monkeypatch):
    forward = TreeForward(build("Mistral, windowed", sliding_window=4096))
    forward.check()
    assert forward.layout == "trees"
    monkeypatch.setattr(masks, "attention_mask", lambda trees, window: attention_mask(trees))
    with pytest.warns(UserWarning, match="model type mistral.*cannot read packed trees"):
        forward.check()
    assert forward.layout == "rows"
    assert forward.model.config.sliding_window == 4096


def test_a_boolean_mask_for_eager_attention_would_be_noticed(monkeypatch):
    monkeypatch.setattr(
        masks, "build_mask", lambda model, trees, window: attention_mask(trees, window)[:, None]
    )
    forward = TreeForward(build("Llama", "eager"))
    with pytest.warns(UserWarning, match="log-probabilities are off"):
        forward.check()


def test_an_attention_without_pair_masks_is_unrolled():
    model = build("Llama")
    model.config._attn_implementation = "flash_attention_2"
    assert TreeForward(model).layout == "rows"


def test_a_model_that_is_wrong_in_rows_too_is_refused():
    """One that mixes in the mean over its whole row, padding included."""
    model = build("Llama")
    model.base_model.norm.register_forward_hook(
        lambda module, given, out: out + out.mean(1, keepdim=True)
    )
    with pytest.raises(
        ModelError, match=r"'LlamaForCausalLM' \(model type llama\) gives wrong log-probabilities"
    ):
        TreeForward(model).check()


def test_the_probe_leaves_everything_as_it_was():
    model = build("Llama", attention_dropout=0.5).train()
    model.base_model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    forward = TreeForward(model)
    forward.check()
    assert forward.layout == "trees"
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert forward(pack_rows(ROWS).trees).logps.requires_grad


def test_adapters_on_four_bit_weights_are_read_too(tiny):
    from lit_align.models.adapter_set import AdapterSet, Lora
    from lit_align.models.load import Base, load_model

    adapters = AdapterSet(load_model(Base(tiny, quantization="nf4", dtype="float32")), Lora(r=4))
    for name, parameter in adapters.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapters.train()
    forward = TreeForward(adapters.model)
    forward.check()
    assert (forward.layout, forward.head) == ("trees", "fused")
    # The four-bit kernel is another one on every kind of CPU, and each rounds rows of another shape in its own way.
    assert_same_step(forward, adapters.model, ROWS, tolerance=2e-4)
    with adapters.activate("reference", training=False), torch.no_grad():
        torch.testing.assert_close(
            forward(pack_rows(ROWS).trees).logps, padded_logps(adapters.model, ROWS)
        )
