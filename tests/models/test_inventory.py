"""What the inventory says of a model is what becomes of it, in every family."""

import pytest
import torch
from torch import nn

from lit_align.errors import ModelError
from lit_align.models.adapter_files import save_adapter
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.inventory import NF4, Inventory
from lit_align.models.layers import reads_weight
from lit_align.models.load import Base, load_model
from lit_align.models.lora import Lora
from tests import families, family_runs

CPU = torch.device("cpu")

# Linear layers that an adapter reaches, and weights of experts, in two layers: counted by hand from the equations of
# each family. Attention has 4 linear layers (5 with latent queries and keys, 2 or 1 where they are fused), a gated
# feed-forward network 3, and experts 2 stacked weights; a state-space layer has its input projection.
NUMBERS = {
    "Llama": (14, 0),
    "Mistral": (14, 0),
    "Qwen2": (14, 0),
    "Qwen3": (14, 0),
    "Gemma2": (14, 0),
    "Gemma3Text": (14, 0),
    "Phi": (12, 0),
    "Phi3": (8, 0),
    "Granite": (14, 0),
    "Olmo2": (14, 0),
    "Olmo3": (14, 0),
    "SmolLM3": (14, 0),
    "Cohere2": (14, 0),
    "Glm4": (12, 0),
    "GPT2": (8, 0),
    "Qwen3Moe": (8 + 3, 2),  # one dense layer
    "DeepseekV3": (10 + 3 + 3, 2),  # one dense layer, one shared expert
    "Glm4Moe": (8 + 3 + 3, 2),
    "GptOss": (8, 4),
    "Mixtral": (8, 4),
    "Olmoe": (8, 4),
    "GraniteMoe": (8, 4),
    "Llama4Text": (8 + 3 + 3, 2),
    "Phimoe": (8, 4),
    "JetMoe": (2, 8),  # queries and outputs are experts too
    "Mamba": (2, 0),
    "Mamba2": (2, 0),
    "FalconMamba": (2, 0),
    "FalconH1": (2 + 8 + 6, 0),
    "Bamba": (1 + 4 + 6, 0),
    "Jamba": (
        3 + 4 + 3,
        2,
    ),  # input, output and step projections; the step's expansion is read as a weight
    "Zamba2": (2 + 4 + 2 + 2 + 1, 0),  # and a low-rank pair and a projection of the shared block
    "GraniteMoeHybrid": (1 + 4 + 4, 4),
    "Qwen3Next": (3 + 4 + 2 * 4, 4),  # a shared expert and its gate
    "RecurrentGemma": (3 + 4 + 6, 0),
    "Lfm2": (2 + 4 + 6, 0),
}


def inventory(config, lora, nf4=False, dtype=torch.float32, causal=True):
    return Inventory.from_config(config, lora, nf4=nf4, dtype=dtype, causal=causal)


def names(model):
    """Modules with an adapter, and weights of larger modules with one, as PEFT has put them there."""
    modules, parameters = set(), set()
    for name, module in model.named_modules():
        own_name = name.replace(".base_layer", "")
        if hasattr(module, "parameter_name"):
            parameters.add(f"{own_name}.{module.parameter_name}")
        elif hasattr(module, "lora_A"):
            modules.add(own_name)
    return modules, parameters


@pytest.mark.parametrize("family", families.CAUSAL)
def test_all_linear_adapts_what_it_says_in_every_family(family):
    model = families.build(family)
    router = [name for name, _ in model.named_modules() if name.endswith((".gate", ".router"))]
    before = inventory(model.config, Lora(r=4))
    adapters = AdapterSet(model, Lora(r=4), gradient_checkpointing=False)
    modules, parameters = names(adapters.model)
    assert (len(modules), len(parameters)) == NUMBERS[family]
    assert modules | parameters == before.adapted == adapters.inventory().adapted
    assert not modules & set(router)
    weights = adapters.parameters_for("policy")
    assert before.adapter_bytes == sum(weight.nbytes for weight in weights)


@pytest.mark.parametrize("family", families.MIXTURES)
def test_experts_and_routers_are_adapted_as_asked(family):
    config = families.config(family)
    linear, experts = NUMBERS[family]
    alone = inventory(config, Lora(adapt_experts=False))
    assert len(alone.adapted) == linear
    routed = inventory(config, Lora(adapt_routers=True))
    routers = [layer.name for layer in routed.layers if layer.kind == "router"]
    assert len(routers) == (4 if family == "JetMoe" else experts / 2)
    assert len(routed.adapted) == linear + experts + len(routers)
    adapters = AdapterSet(
        families.build(family), Lora(adapt_routers=True), gradient_checkpointing=False
    )
    assert adapters.inventory().adapted == routed.adapted


@pytest.mark.parametrize("family", families.ENCODERS)
def test_layers_of_encoders_are_adapted_but_for_their_embeddings(family):
    found = inventory(families.config(family), Lora(), causal=False)
    model = families.build(family)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert found.adapted == set(linear)


@pytest.mark.parametrize("family", ["Llama", "Qwen3Moe", "Mamba", "GptOss", "Zamba2"])
def test_weights_in_4_bits_are_those_that_the_inventory_says(family, tmp_path):
    family_runs.save(family, tmp_path)
    model = load_model(Base(str(tmp_path), "nf4", "bfloat16"), CPU)
    before = inventory(model.config, Lora(r=4), nf4=True, dtype=torch.bfloat16)
    after = AdapterSet(model, Lora(r=4), gradient_checkpointing=False).inventory()
    assert (after.four_bit, after.adapted) == (before.four_bit, before.adapted)
    assert after.weight_bytes == before.weight_bytes
    assert after.table() == before.table()
    stored = sum(layer.numbers for layer in before.layers if layer.name in before.four_bit)
    assert before.weight_bytes == round((before.numbers - stored) * 2 + stored * NF4)


def test_the_weights_of_experts_are_in_4_bits_and_routers_stay_whole():
    table = inventory(families.config("Mixtral"), Lora(), nf4=True, dtype=torch.bfloat16).table()
    lines = {line.partition(":")[0]: line for line in table.splitlines()}
    assert "4 bits" in lines["experts"]
    assert "16 bits" in lines["routers"]
    assert "see lora.adapt_routers" in lines["routers"]


@pytest.mark.parametrize("family", ["Qwen3Moe", "DeepseekV3", "JetMoe"])
def test_an_adapter_of_a_mixture_goes_on_to_the_next_stage(family, tmp_path):
    trained = AdapterSet(families.build(family), Lora(r=4), gradient_checkpointing=False)
    random = torch.Generator().manual_seed(0)
    for weight in trained.trainable().values():
        weight.data.normal_(0, 0.1, generator=random)
    save_adapter(trained, tmp_path / "adapter")
    following = AdapterSet(
        families.build(family),
        Lora(r=4),
        init_adapter=tmp_path / "adapter",
        trained_roles=("policy", "critic"),
        gradient_checkpointing=False,
    )
    ids = torch.arange(5, 25)[None]

    def logits(adapters, role):
        with torch.no_grad(), adapters.activate(role, training=False) as model:
            return model(input_ids=ids).logits

    assert not torch.equal(logits(trained, "policy"), logits(trained, "reference"))
    for role in ("policy", "critic", "reference"):
        assert torch.equal(logits(following, role), logits(trained, "policy"))


@pytest.mark.parametrize(
    ("family", "lora", "sentence"),
    [
        ("Llama", Lora(targets=["w1"]), "lora.targets names 'w1', which this model does not have"),
        ("Mamba", Lora(targets=["out_proj"]), "reads its weight past an adapter; leave it out"),
        ("Llama", Lora(targets=r".*nothing"), "leaves no layer to adapt"),
        ("Mixtral", Lora(dropout=0.1), "lora.dropout 0.1 cannot be applied"),
    ],
)
def test_targets_that_cannot_be_adapted_are_refused_without_weights(family, lora, sentence):
    with pytest.raises(ModelError, match=sentence):
        inventory(families.config(family), lora)


def test_named_targets_may_be_experts_and_routers():
    found = inventory(families.config("Mixtral"), Lora(targets=["q_proj", "down_proj", "gate"]))
    kinds = [layer.kind for layer in found.layers if layer.name in found.adapted]
    assert sorted(kinds) == ["experts"] * 2 + ["linear"] * 2 + ["router"] * 2


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, states):
        return nn.functional.linear(self.up(states).to(self.up.weight.dtype), self.down.weight)


def test_a_weight_that_is_read_past_its_layer_is_found():
    assert reads_weight(Fused, "down")
    assert not reads_weight(Fused, "up")


@pytest.mark.parametrize(
    ("family", "quantization"), [("Qwen3Moe", "nf4"), ("Llama4Text", "none"), ("FalconH1", "none")]
)
def test_a_family_goes_from_dpo_to_ppo(family, quantization, tmp_path):
    outcomes = family_runs.journey(family, quantization, tmp_path)
    assert (outcomes["dpo"], outcomes["ppo"]) == ("works", "works")


def test_a_model_without_checkpointing_is_refused_before_its_weights_load(tmp_path):
    family_runs.save("JetMoe", tmp_path / "JetMoe")
    (tmp_path / "JetMoe" / "model.safetensors").unlink()
    outcomes = family_runs.journey("JetMoe", "none", tmp_path)
    assert outcomes["dpo"].endswith(
        "does not support gradient checkpointing; set gradient_checkpointing to false"
    )
