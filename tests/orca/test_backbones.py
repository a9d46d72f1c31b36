"""Backbones against the models that they are made of, small and random; what a token sees in each attention mode."""

from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    Dinov2Config,
    Dinov2Model,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
)

from lit_align.errors import ConfigError, ModelError
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base, load_model
from lit_align.orca.backbones import backbone_for
from lit_align.orca.types import Embedded

SIZE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
TEXT = {**SIZE, "vocab_size": 50, "max_position_embeddings": 64}
HEADS = {"num_key_value_heads": 1}
GPT2 = GPT2Config(
    n_embd=16, n_layer=3, n_head=2, vocab_size=50, n_positions=64, bos_token_id=0, eos_token_id=0
)
CAUSAL = {
    "llama": (LlamaForCausalLM, LlamaConfig(**TEXT, **HEADS)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**TEXT, **HEADS)),
    "mistral": (MistralForCausalLM, MistralConfig(**TEXT, **HEADS, sliding_window=32)),
    "gpt2": (GPT2LMHeadModel, GPT2),
}
ENCODERS = {
    "bert": (BertModel, BertConfig(**TEXT)),
    "roberta": (RobertaModel, RobertaConfig(**TEXT, pad_token_id=1)),
}
VISION = {
    "vit": (ViTModel, ViTConfig(**SIZE, image_size=16, patch_size=4)),
    "dinov2": (Dinov2Model, Dinov2Config(**SIZE, image_size=16, patch_size=4)),
}
MODES = ("none", "double", "flip", "bidirectional")
KINDS = {**CAUSAL, **ENCODERS, **VISION}


def build_model(kind):
    """Weights large enough for errors to show."""
    cls, config = KINDS[kind]
    config = type(config)(**config.to_dict())
    torch.manual_seed(0)
    model = cls(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


def unpadded(tokens, grid=None):
    return Embedded(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), grid)


@pytest.fixture
def ids():
    return torch.randint(5, 50, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [*CAUSAL, *ENCODERS])
@torch.no_grad()
def test_fed_its_own_words_a_backbone_gives_the_model_s_own_hidden_states(kind, ids):
    """So positions, types and norms are there, and there once; RoBERTa's positions begin where they should."""
    model = build_model(kind)
    wanted = model(ids, output_hidden_states=True).hidden_states[-1]
    words = model.get_input_embeddings()(ids)
    torch.testing.assert_close(backbone_for(model)(unpadded(words)), wanted)


@pytest.mark.parametrize("kind", VISION)
@pytest.mark.parametrize("sides", [(16, 16), (12, 20)])
@torch.no_grad()
def test_fed_its_own_patches_a_vision_backbone_gives_the_model_s_own_hidden_states(kind, sides):
    model, pixels = (
        build_model(kind),
        torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(1)),
    )
    stretch = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    wanted = model(pixels, **stretch).last_hidden_state[:, 1:]
    patches = model.get_input_embeddings()(pixels)
    found = backbone_for(model)(unpadded(patches, (sides[0] // 4, sides[1] // 4)))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in KINDS for mode in MODES if kind in CAUSAL or mode == "none"],
)
@torch.no_grad()
def test_padding_and_gaps_change_nothing(kind, mode):
    backbone, draw = (
        backbone_for(build_model(kind), attention_mode=mode),
        torch.Generator().manual_seed(2),
    )
    grid = (2, 4) if kind in VISION else None
    tokens = torch.randn(2, 8, 16, generator=draw)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[0, 5:] = mask[0, 2] = False
    found = backbone(Embedded(tokens, mask, grid))
    assert found.isfinite().all()
    noisy = torch.where(mask[..., None], tokens, torch.randn(2, 8, 16, generator=draw))
    torch.testing.assert_close(backbone(Embedded(noisy, mask, grid))[mask], found[mask])
    if grid is None:
        alone = backbone(Embedded(tokens[:1, :5], mask[:1, :5]))
        torch.testing.assert_close(alone[mask[:1, :5]], found[0][mask[0]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "sees"), [("none", False), ("double", True), ("flip", True), ("bidirectional", True)]
)
@pytest.mark.parametrize("kind", CAUSAL)
def test_whether_the_first_token_sees_the_last(kind, mode, sees):
    backbone = backbone_for(build_model(kind), attention_mode=mode)
    tokens = torch.randn(1, 6, 16, requires_grad=True)
    backbone(unpadded(tokens))[0, 0].sum().backward()
    assert bool(tokens.grad[0, -1].abs().max() > 1e-6) is sees


@pytest.mark.parametrize("kind", CAUSAL)
@torch.no_grad()
def test_double_and_flip_are_readings_of_the_model_itself(kind):
    """Double: the second half of the model's reading of z‖z. Flip: the mean with its reading of the reversed row."""
    model, z = build_model(kind), torch.randn(2, 6, 16)

    def read(x):
        return model(inputs_embeds=x, output_hidden_states=True).hidden_states[-1]

    twice = read(torch.cat([z, z], 1))[:, 6:]
    both = (read(z) + read(z.flip(1)).flip(1)) / 2
    torch.testing.assert_close(backbone_for(model, attention_mode="double")(unpadded(z)), twice)
    torch.testing.assert_close(backbone_for(model, attention_mode="flip")(unpadded(z)), both)


@torch.no_grad()
def test_bidirectional_without_positions_does_not_know_the_order():
    model = build_model("gpt2")
    torch.nn.init.zeros_(model.transformer.wpe.weight)
    backbone, z = backbone_for(model, attention_mode="bidirectional"), torch.randn(1, 6, 16)
    torch.testing.assert_close(backbone(unpadded(z)).flip(1), backbone(unpadded(z.flip(1))))


def test_what_an_embedder_is_told():
    spec = backbone_for(build_model("llama")).spec
    assert (spec.d_model, spec.max_tokens) == (16, 64)
    table = build_model("llama").get_input_embeddings().weight
    torch.testing.assert_close(spec.stats.mean, table.mean(0))
    torch.testing.assert_close(spec.stats.std, table.std(0, correction=0))
    assert backbone_for(build_model("llama"), attention_mode="double").spec.max_tokens == 32
    assert backbone_for(build_model("mistral")).spec.max_tokens == 32  # within its window
    assert backbone_for(build_model("bert")).spec.max_tokens == 64
    assert (
        backbone_for(build_model("roberta")).spec.max_tokens == 62
    )  # positions 0 and 1 are not for tokens


@torch.no_grad()
def test_a_vision_backbone_is_used_to_its_projection_of_noise():
    """A projection w of white noise has deviation |w|, and the bias for its mean."""
    projection = build_model("vit").get_input_embeddings().projection
    stats = backbone_for(build_model("vit")).spec.stats
    torch.testing.assert_close(
        stats.std, projection.weight.flatten(1).norm(dim=1), rtol=0.1, atol=0
    )
    assert ((stats.mean - projection.bias).abs() < 0.15 * stats.std).all()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_backbone_of_fewer_layers_is_the_beginning_of_the_whole(kind):
    """Its last norm aside, so two cut in one way are compared: all layers, the third doing nothing."""
    model, grid = build_model(kind), (2, 3) if kind in VISION else None
    tokens = unpadded(torch.randn(1, 6, 16), grid)
    backbone = backbone_for(build_model(kind), layers=2)
    stack = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)

    def same(_module, inputs, kwargs, output):
        given = inputs[0] if inputs else kwargs["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    stack[2].register_forward_hook(same, with_kwargs=True)
    torch.testing.assert_close(backbone(tokens), backbone_for(model)(tokens))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["lora", "layernorm", "full", "frozen"])
def test_what_is_tuned_and_that_a_gradient_comes_through(kind, mode):
    backbone = backbone_for(build_model(kind))
    tokens = torch.randn(1, 6, 16, requires_grad=True)
    before = backbone(unpadded(tokens, (2, 3))).detach()
    backbone.tune(mode, Lora(r=2))
    after = backbone(unpadded(tokens, (2, 3)))
    torch.testing.assert_close(after, before)
    after.square().sum().backward()
    assert tokens.grad.abs().max() > 0
    trained = {name for name, weight in backbone.named_parameters() if weight.requires_grad}
    table = {
        name
        for name, _ in backbone.named_parameters()
        if "word_emb" in name or "wte" in name or "embed_tokens" in name
    }
    patches = {name for name, _ in backbone.named_parameters() if "patch_embeddings" in name}
    assert not trained & (table | patches)
    if mode == "frozen":
        assert not trained
    elif mode == "lora":
        assert trained
        assert all("lora_" in name for name in trained)
    elif mode == "layernorm":
        assert trained
        assert all(any(word in name.lower() for word in ("norm", "ln_")) for name in trained)
    else:
        rest = {name for name, _ in backbone.named_parameters()} - table - patches
        assert trained == rest
    idle = {name for name in trained if dict(backbone.named_parameters())[name].grad is None}
    assert not {
        name for name in idle if "mask_token" not in name
    }  # DINOv2 keeps one for its own training


def test_adapters_are_drawn_from_the_seed_alone():
    backbones = [backbone_for(build_model("llama")) for _ in range(2)]
    state = torch.random.get_rng_state()
    for backbone in backbones:
        backbone.tune("lora", Lora(r=2), seed=3)
        torch.rand(1)
    weights = [dict(backbone.named_parameters()) for backbone in backbones]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    torch.random.set_rng_state(state)


def test_refusals():
    mamba = MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=50))
    with pytest.raises(
        ModelError,
        match="'MambaForCausalLM' cannot be a backbone: its layers include linear_attention",
    ):
        backbone_for(mamba)
    with pytest.raises(ModelError, match="has 3 layers; layers is 4, set it from 1 to 3"):
        backbone_for(build_model("llama"), layers=4)
    with pytest.raises(
        ConfigError, match=r"attention_mode is flip, but .* attends in both directions"
    ):
        backbone_for(build_model("bert"), attention_mode="flip")
    with pytest.raises(ModelError, match="t5 model, which cannot be a backbone"):
        backbone_for(
            T5Model(T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=50))
        )
    with pytest.raises(ConfigError, match="two-dimensional grid; give it images"):
        backbone_for(build_model("vit"))(unpadded(torch.zeros(1, 4, 16), (4,)))
    with pytest.raises(
        ModelError, match=r"lora\.targets names 'nowhere', which this model does not have"
    ):
        backbone_for(build_model("llama")).tune("lora", Lora(targets=["nowhere"]))


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_what_is_no_language_model_loads_as_a_backbone(kind, tmp_path):
    build_model(kind).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="not a causal language model"):
        load_model(Base(str(tmp_path), quantization="none"))
    backbone = backbone_for(load_model(Base(str(tmp_path), quantization="none"), causal=False))
    tokens = unpadded(torch.randn(1, 6, 16), (2, 3))
    torch.testing.assert_close(backbone(tokens), backbone_for(build_model(kind))(tokens))


def test_in_four_bits_adapters_learn_and_the_whole_is_refused(tiny: Path):
    model = load_model(Base(str(tiny), quantization="nf4"), torch.device("cpu"))
    backbone = backbone_for(model, attention_mode="bidirectional")
    with pytest.raises(ModelError, match="is in 4 bits, which can only be trained by adapters"):
        backbone.tune("full", Lora())
    backbone.tune("lora", Lora(r=2))
    tokens = torch.randn(1, 5, 32, requires_grad=True)
    backbone(unpadded(tokens)).square().sum().backward()
    assert tokens.grad.abs().max() > 0
    assert all(
        weight.grad is not None for name, weight in backbone.named_parameters() if "lora_" in name
    )
