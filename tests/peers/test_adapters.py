"""Adapters go from this package to PEFT and back, and merged into transformers: with equal logits, or refused."""

import json
import re
import subprocess
import sys

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from lit_align.errors import ModelError
from lit_align.models.adapter_files import save_adapter
from lit_align.models.export import merge
from lit_align.models.merging import merge_weights
from lit_align.models.vllm import vllm_options, vllm_problems
from tests import tiny as tiny_model
from tests.peers.adapters import (
    base_folder,
    from_peft,
    in_peft,
    logits,
    policy_logits,
    start,
    trained,
)

IN_PEFT = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
differences = {}
for name, base, adapter, expected in json.load(sys.stdin):
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.arange(5, 25)[None]).logits
    differences[name] = (logits - torch.load(expected)).abs().max().item()
assert not any(name.startswith("lit_align") for name in sys.modules)
print(json.dumps(differences))
"""
TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return tmp_path_factory.mktemp("bases")


def test_a_process_of_peft_alone_computes_our_logits(bases, tmp_path):
    """In the mixtures PEFT takes the names of dense layers for those of experts; routers are parameters."""
    cases = []
    for family in ("Llama", "GPT2", "Qwen3Moe", "DeepseekV3", "GptOss", "Mixtral"):
        base = base_folder(family, bases)
        adapters = trained(base, adapt_routers=True)
        save_adapter(adapters, tmp_path / family)
        torch.save(policy_logits(adapters), tmp_path / f"{family}.pt")
        cases.append((family, str(base), str(tmp_path / family), str(tmp_path / f"{family}.pt")))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_PEFT],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    differences = json.loads(result.stdout)
    assert len(differences) == len(cases)
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Llama", {}),
        ("Llama", {"use_rslora": True}),
        ("Llama", {"use_dora": True}),
        ("Llama", {"lora_bias": True, "target_modules": ["q_proj"]}),
        ("Llama", {"target_modules": ["q_proj", "lm_head"]}),
        ("Llama", {"target_modules": [], "target_parameters": ["q_proj.weight"]}),
        ("Llama", {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]}),
        ("Llama", {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 3}}),
        ("GPT2", {"use_rslora": True}),
        ("Qwen3Moe", {}),
        ("Mixtral", {"use_rslora": True}),
        ("GptOss", {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}),
    ],
    ids=str,
)
def test_an_adapter_of_peft_goes_on_here_and_back(family, settings, bases, tmp_path):
    base = base_folder(family, bases)
    theirs = from_peft(base, tmp_path / "theirs", **settings)
    adapters = start(base, tmp_path / "theirs")
    torch.testing.assert_close(policy_logits(adapters), theirs, **TOLERANCE)
    save_adapter(adapters, tmp_path / "ours")
    torch.testing.assert_close(in_peft(base, tmp_path / "ours"), theirs, **TOLERANCE)
    record = json.loads((tmp_path / "ours" / "provenance.json").read_text())["lora"]
    written = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert record.get("use_rslora", False) == written["use_rslora"]
    if "experts" in str(written["target_parameters"]):
        assert {"experts.gate_up_proj", "experts.down_proj"} <= set(record["target_parameters"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bias": "all"}, "sets bias, which changes the shared base; merge it"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save, which changes the shared base"),
        ({"trainable_token_indices": [3]}, "sets trainable_token_indices, which changes"),
        ({"init_lora_weights": "pissa"}, "sets init_lora_weights, which changes the shared base"),
        (
            {"alora_invocation_tokens": [3]},
            "sets alora_invocation_tokens, a variant of LoRA that lit-align does not compute; merge it",
        ),
    ],
    ids=str,
)
def test_other_adapters_are_refused_with_the_remedy(settings, sentence, bases, tmp_path):
    base = base_folder("Llama", bases)
    from_peft(base, tmp_path / "theirs", **{"target_modules": ["q_proj"], **settings})
    with pytest.raises(ModelError, match=re.escape(sentence)):
        start(base, tmp_path / "theirs")


def test_resized_embeddings_are_refused(bases, tmp_path):
    from peft import get_peft_model

    base = base_folder("Llama", bases)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(300, mean_resizing=False)
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(tmp_path, save_embedding_layers=True)
    with pytest.raises(ModelError, match="embeddings were resized or trained; merge it into the"):
        start(base, tmp_path)


def test_dropout_on_experts_names_the_setting(bases, tmp_path):
    base = base_folder("GptOss", bases)
    from_peft(base, tmp_path, target_parameters=["experts.down_proj"])
    with pytest.raises(ModelError, match=r"lora\.dropout 0\.1 cannot be .* set it to 0"):
        start(base, tmp_path, dropout=0.1)


@pytest.mark.parametrize("trainer", ["sft", "dpo"])
def test_an_adapter_of_trl_goes_on_here(trainer, tiny, tmp_path):
    import trl

    rows = {"prompt": ["a b", "c d"], "chosen": [" yes", " no"], "rejected": [" never", " x"]}
    arguments = {
        "output_dir": str(tmp_path / "run"),
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.05,
        "use_cpu": True,
        "report_to": "none",
    }
    common = {"model": str(tiny), "peft_config": LoraConfig(r=4, target_modules="all-linear")}
    if trainer == "sft":
        texts = Dataset.from_dict({"prompt": rows["prompt"], "completion": rows["chosen"]})
        run = trl.SFTTrainer(args=trl.SFTConfig(**arguments), train_dataset=texts, **common)
    else:
        pairs = Dataset.from_dict(rows)
        run = trl.DPOTrainer(args=trl.DPOConfig(**arguments), train_dataset=pairs, **common)
    run.train()
    run.save_model(str(tmp_path / "adapter"))
    theirs = in_peft(tiny, tmp_path / "adapter")
    untrained = logits(AutoModelForCausalLM.from_pretrained(tiny).eval())
    assert (theirs - untrained).abs().max() > 0.01
    adapters = start(tiny, tmp_path / "adapter")
    torch.testing.assert_close(policy_logits(adapters), theirs, **TOLERANCE)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("family", ["GPT2", "Qwen3Moe", "GptOss", "JetMoe", "Llama4Text"])
def test_merged_weights_say_what_was_trained(family, quantization, bases, tmp_path):
    adapters = trained(base_folder(family, bases), quantization, adapt_routers=True)
    theirs = _merged(adapters, tmp_path)
    assert theirs.abs().max() > 0.1


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("settings", [{"use_dora": True}, {"use_rslora": True}], ids=str)
def test_variants_of_lora_are_merged(settings, quantization, bases, tmp_path):
    base = base_folder("GPT2", bases)
    from_peft(base, tmp_path / "theirs", **settings)
    _merged(start(base, tmp_path / "theirs", quantization), tmp_path / "merged")


def _merged(adapters, folder):
    """The logits of the folder that merging writes, which are those that were trained."""
    ours = policy_logits(adapters)
    merge(adapters, "policy", tiny_model.tokenizer(), folder, 1e-3, lambda *_: None)
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    torch.testing.assert_close(logits(model.eval()), ours, rtol=0, atol=1e-4)
    return ours


def test_weights_that_cannot_be_merged_name_the_remedy(bases, tmp_path):
    adapters = trained(base_folder("GptOss", bases))
    experts = adapters.model.get_submodule("model.layers.1.mlp.experts").get_base_layer()
    packed = torch.zeros(experts.gate_up_proj.shape, dtype=torch.uint8)
    experts.gate_up_proj = torch.nn.Parameter(packed, requires_grad=False)
    sentence = r"experts\.gate_up_proj is stored as torch\.uint8, .*lora\.adapt_experts: false"
    with pytest.raises(ModelError, match=sentence):
        merge_weights(adapters, "policy")


def test_a_shared_weight_is_not_merged_into(tiny):
    with pytest.raises(ModelError, match="lm_head is shared with another layer, which merging"):
        merge_weights(trained(tiny, targets=["q_proj", "lm_head"]), "policy")


@pytest.mark.parametrize(
    ("family", "settings", "problem"),
    [
        ("Llama", {"r": 12}, ""),
        ("Llama", {"r": 24}, ""),
        ("Llama", {"r": 600}, "its rank 600 is over 512"),
        ("GPT2", {}, ""),
        ("Qwen3Moe", {}, "it is on the stacked weights of experts or routers"),
        ("Mixtral", {"adapt_experts": False}, ""),
    ],
    ids=str,
)
def test_what_vllm_would_not_load_is_known(family, settings, problem, bases, tmp_path):
    save_adapter(trained(base_folder(family, bases), **settings), tmp_path)
    assert vllm_problems(tmp_path) == ([problem] if problem else [])
    if not problem:
        limit = " --max-lora-rank 32" if settings.get("r") == 24 else ""
        assert vllm_options(tmp_path) == f"--enable-lora{limit}"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"use_dora": True}, "it is a DoRA adapter"),
        ({"bias": "all"}, "it has biases"),
        ({"lora_bias": True}, "it has biases"),
        ({"modules_to_save": ["lm_head"]}, "it trains weights of the base"),
        ({"rank_pattern": {"q_proj": 3}}, "its layers differ in rank or alpha"),
    ],
    ids=str,
)
def test_what_vllm_has_no_place_for_is_known(settings, problem, bases, tmp_path):
    from_peft(base_folder("Llama", bases), tmp_path, target_modules=["q_proj"], **settings)
    assert vllm_problems(tmp_path) == [problem]
