"""One base plays several roles, and a role leaves no trace."""

import hashlib
import json

import pytest
import torch
from torch.nn.functional import cross_entropy

from lit_align import __version__
from lit_align.errors import ModelError
from lit_align.models.adapter_files import load_adapter, save_adapter
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.fingerprint import adapter_fingerprint
from lit_align.models.load import Base, load_model


def base(tiny, quantization="none", dtype="float32"):
    return load_model(Base(tiny, quantization, dtype), torch.device("cpu"))


def shaken(adapters, seed=0):
    """Adapters start as no change at all; make them one."""
    random = torch.Generator().manual_seed(seed)
    for parameter in adapters.trainable().values():
        parameter.data.normal_(0, 0.1, generator=random)
    return adapters


def loss(model, ids):
    return cross_entropy(
        model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    )


def gradient(adapters):
    found = torch.cat([p.grad.flatten() for p in adapters.trainable().values()])
    adapters.zero_grad()
    return found


def digest(adapters):
    frozen = {k: v for k, v in adapters.state_dict().items() if "lora_" not in k}
    return hashlib.sha256(
        b"".join(v.numpy().tobytes() for _, v in sorted(frozen.items()))
    ).hexdigest()


@pytest.fixture
def init_adapter(tiny, tmp_path):
    """An adapter that differs from the base."""
    adapters = AdapterSet(base(tiny), Lora(r=4, alpha=8), gradient_checkpointing=False)
    save_adapter(shaken(adapters, seed=9), tmp_path / "sft")
    return tmp_path / "sft"


@pytest.mark.parametrize(
    ("quantization", "dtype"), [("none", "float32"), ("nf4", "float32"), ("nf4", "bfloat16")]
)
@pytest.mark.parametrize("start", ["base", "sft"])
def test_before_the_first_step_the_kl_is_exactly_zero(
    tiny, ids, init_adapter, start, quantization, dtype
):
    adapters = AdapterSet(
        base(tiny, quantization, dtype),
        Lora(r=4, alpha=8),
        init_adapter=init_adapter if start == "sft" else None,
    )
    with torch.no_grad():
        bare = base(tiny, quantization, dtype)(ids).logits
        with adapters.activate("policy") as model:
            policy = model(ids).logits
        with adapters.activate("reference") as model:
            reference = model(ids).logits
    assert torch.equal(policy, reference)
    apart = (
        policy - bare
    ).norm() / bare.norm()  # by roundings: layers are computed in another order
    assert (apart < (1e-6 if dtype == "float32" else 3e-2)) == (start == "base")


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_training_moves_the_policy_and_nothing_else(tiny, ids, init_adapter, quantization):
    adapters = AdapterSet(
        base(tiny, quantization), Lora(r=4, alpha=8), init_adapter=init_adapter
    ).train()
    optimizer = torch.optim.AdamW(adapters.trainable().values(), lr=0.01)
    with torch.no_grad(), adapters.activate("reference", training=False) as model:
        reference = model(ids).logits
    frozen, policy = digest(adapters), adapter_fingerprint(adapters, "policy")
    for _ in range(3):
        with torch.no_grad(), adapters.activate("reference", training=False) as model:
            model(ids)
        loss(adapters.model, ids).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert digest(adapters) == frozen
    assert adapter_fingerprint(adapters, "policy") != policy
    with torch.no_grad(), adapters.activate("reference", training=False) as model:
        assert torch.equal(model(ids).logits, reference)
    assert all("policy" in name for name in adapters.trainable())


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("start", ["base", "sft"])
def test_a_role_leaves_no_trace(tiny, ids, init_adapter, start, gradient_checkpointing):
    lora = Lora(r=4, alpha=8, dropout=0.2)
    adapters = shaken(
        AdapterSet(
            base(tiny),
            lora,
            init_adapter=init_adapter if start == "sft" else None,
            gradient_checkpointing=gradient_checkpointing,
        )
    ).train()

    def step(meanwhile):
        torch.manual_seed(0)
        found = loss(adapters.model, ids)
        meanwhile()
        found.backward()
        return gradient(adapters)

    def judge():
        with torch.no_grad(), adapters.activate("reference", training=False) as model:
            assert not model.training
            model(ids)

    plain = step(lambda: None)
    assert torch.equal(step(judge), plain)
    assert adapters.active == "policy"
    assert adapters.model.training
    # and when somebody else is still playing while the policy's layers are computed again
    with adapters.activate("reference", training=False):
        roles_off = adapters.activate("policy", training=True)
        with roles_off:
            torch.manual_seed(0)
            found = loss(adapters.model, ids)
        found.backward()
    assert torch.equal(gradient(adapters), plain)


def test_without_the_remembered_role_a_checkpointed_gradient_is_wrong(tiny, ids, init_adapter):
    """What the remembered role is for; if this fails, transformers or PEFT has changed."""
    adapters = shaken(AdapterSet(base(tiny), Lora(r=4, alpha=8), init_adapter=init_adapter)).train()
    loss(adapters.model, ids).backward()
    plain = gradient(adapters)
    adapters.model.activation_checkpointing_enable({"use_reentrant": False})
    for name, parameter in adapters.named_parameters():
        if ".reference." in name:
            parameter.requires_grad_(
                True
            )  # as a second role that learns would be; torch notices a frozen one
    found = loss(adapters.model, ids)
    with adapters.activate("reference"):
        found.backward()
    wrong = torch.cat(
        [p.grad.flatten() for name, p in adapters.trainable().items() if ".policy." in name]
    )
    assert (wrong - plain).norm() > 0.5 * plain.norm()


def test_a_kept_graph_can_be_run_backward_twice(tiny, ids):
    adapters = shaken(AdapterSet(base(tiny), Lora(r=4, alpha=8))).train()
    found = loss(adapters.model, ids)
    with adapters.activate("reference"):
        found.backward(retain_graph=True)
        once = gradient(adapters)
        found.backward()
    assert torch.equal(gradient(adapters), once)


@pytest.mark.parametrize(
    ("gradient_checkpointing", "training", "runs"),
    [(True, True, 2), (True, False, 1), (False, True, 1)],
)
def test_checkpointing_computes_every_layer_twice_in_train_mode(
    tiny, ids, gradient_checkpointing, training, runs
):
    adapters = shaken(
        AdapterSet(base(tiny), Lora(r=4, alpha=8), gradient_checkpointing=gradient_checkpointing)
    ).train(training)
    calls = []
    for layer in (
        adapters.model.model.layers
    ):  # the checkpoint is around the layer, so a part is counted; torch stops before its end
        layer.self_attn.q_proj.register_forward_hook(lambda *_: calls.append(1))
    loss(adapters.model, ids).backward()
    assert len(calls) == runs * len(adapters.model.model.layers)


def test_checkpointing_changes_no_gradient(tiny, ids):
    found = []
    for gradient_checkpointing in (False, True):
        adapters = shaken(
            AdapterSet(
                base(tiny), Lora(r=4, alpha=8), gradient_checkpointing=gradient_checkpointing
            )
        ).train()
        loss(adapters.model, ids).backward()
        found.append(gradient(adapters))
    assert torch.equal(*found)


def test_nf4_gradient_is_the_same_after_an_eval_pass(tiny, ids):
    adapters = shaken(
        AdapterSet(base(tiny, "nf4"), Lora(r=4, alpha=8), gradient_checkpointing=False)
    ).train()
    loss(adapters.model, ids).backward()
    before = gradient(adapters)
    with torch.no_grad(), adapters.activate("policy", training=False) as model:
        model(ids)
    loss(adapters.model, ids).backward()
    assert torch.equal(gradient(adapters), before)


def test_initial_weights_depend_on_the_seed_alone(tiny):
    torch.manual_seed(5)
    expected = torch.rand(1)
    found = []
    for noise, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(noise)
        found.append(adapter_fingerprint(AdapterSet(base(tiny), Lora(), seed=seed), "policy"))
    assert found[0] == found[1] != found[2]
    torch.manual_seed(5)
    AdapterSet(base(tiny), Lora(), seed=0)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_saved_policy_is_what_peft_loads(tiny, ids, tmp_path, quantization):
    from peft import PeftModel

    adapters = shaken(AdapterSet(base(tiny, quantization), Lora(r=4, alpha=8)))
    save_adapter(adapters, tmp_path / "policy", provenance={"rows": 7})
    assert {path.name for path in tmp_path.iterdir()} == {"policy"}
    files = {"adapter_config.json", "adapter_model.safetensors", "provenance.json"}
    assert {path.name for path in (tmp_path / "policy").iterdir()} == files
    record = json.loads((tmp_path / "policy" / "provenance.json").read_text())
    assert record.pop("lora")["r"] == 4
    assert record == {"rows": 7, "base": tiny, "role": "policy", "lit_align": __version__}
    peer = PeftModel.from_pretrained(base(tiny, quantization), tmp_path / "policy").eval()
    with torch.no_grad():
        torch.testing.assert_close(peer(ids).logits, adapters.model(ids).logits)


def test_load_brings_weights_back(tiny, tmp_path):
    adapters = shaken(AdapterSet(base(tiny), Lora(r=4, alpha=8)))
    before = adapter_fingerprint(adapters, "policy")
    save_adapter(adapters, tmp_path / "policy")
    shaken(adapters, seed=4)
    assert adapter_fingerprint(adapters, "policy") != before
    save_adapter(adapters, tmp_path / "later")
    save_adapter(adapters, tmp_path / "later")  # over the older one
    load_adapter(adapters, tmp_path / "policy")
    assert adapter_fingerprint(adapters, "policy") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["later", "policy"]


def test_targets_may_be_a_pattern(tiny, ids, tmp_path):
    adapters = shaken(AdapterSet(base(tiny), Lora(r=4, alpha=8, targets=r".*\.(q|v)_proj")))
    save_adapter(adapters, tmp_path / "policy")
    again = AdapterSet(base(tiny), Lora(r=4, alpha=8), init_adapter=tmp_path / "policy")
    assert torch.equal(again.model(ids).logits, adapters.model(ids).logits)
    assert (
        json.loads((tmp_path / "policy" / "provenance.json").read_text())["lora"]["targets"]
        == r".*\.(q|v)_proj"
    )


def test_a_save_that_dies_leaves_the_older_one(tiny, tmp_path):
    adapters = shaken(AdapterSet(base(tiny), Lora(r=4, alpha=8)))
    save_adapter(adapters, tmp_path / "policy")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()}
    shaken(adapters, seed=4)
    with pytest.raises(TypeError):
        save_adapter(adapters, tmp_path / "policy", provenance={"unwritable": object()})
    assert {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()} == saved
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_fingerprint_names_what_is_computed(tiny, init_adapter):
    plain = AdapterSet(base(tiny), Lora(r=4, alpha=8))
    copied = AdapterSet(base(tiny), Lora(r=4, alpha=8), init_adapter=init_adapter)
    found = {
        "base": adapter_fingerprint(plain, "reference"),
        "nf4": adapter_fingerprint(AdapterSet(base(tiny, "nf4"), Lora(r=4)), "reference"),
        "sft": adapter_fingerprint(copied, "reference"),
    }
    assert len(set(found.values())) == 3
    assert (
        adapter_fingerprint(copied, "policy") == found["sft"]
    )  # the same weights, whoever plays them
    assert (
        adapter_fingerprint(shaken(plain), "reference") == found["base"]
    )  # the policy's adapter is none of its business
    plain.model.lm_head.weight.data += 1
    assert adapter_fingerprint(plain, "reference") != found["base"]


def test_an_sft_adapter_of_another_base_is_refused(tiny, init_adapter):
    config = json.loads((init_adapter / "adapter_config.json").read_text())
    (init_adapter / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": "org/other"})
    )
    with pytest.raises(
        ModelError, match=f"was trained on 'org/other', not on '{tiny}'; give that base"
    ):
        AdapterSet(base(tiny), Lora(r=4, alpha=8), init_adapter=init_adapter)


def test_an_sft_adapter_brings_its_own_rank_and_says_so(tiny, init_adapter):
    with pytest.warns(
        UserWarning, match="has r=4 and alpha=8; lora.r=16 and lora.alpha=32 are not used"
    ):
        adapters = AdapterSet(base(tiny), Lora(), init_adapter=init_adapter)
    assert adapters.peft.peft_config["policy"].r == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [("modules_to_save", ["lm_head"]), ("init_lora_weights", "pissa"), ("bias", "all")],
)
def test_an_adapter_that_changes_the_base_is_refused(tiny, init_adapter, field, value):
    config = json.loads((init_adapter / "adapter_config.json").read_text())
    (init_adapter / "adapter_config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(ModelError, match=f"sets {field}, which changes the shared base"):
        AdapterSet(base(tiny), Lora(r=4, alpha=8), init_adapter=init_adapter)


def test_prompt_learning_is_refused(tiny, tmp_path):
    from peft import PromptTuningConfig, get_peft_model

    get_peft_model(
        base(tiny), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is PROMPT_TUNING; only LoRA adapters are supported"):
        AdapterSet(base(tiny), Lora(), init_adapter=tmp_path)


def test_what_cannot_be_done_is_refused(tiny, init_adapter, tmp_path):
    adapters = AdapterSet(base(tiny), Lora(r=8, alpha=8))
    with pytest.raises(
        ModelError, match="no role is called 'critic'; there are policy and reference"
    ):
        adapters.activate("critic")
    with pytest.raises(ModelError, match=r"the reference is .* itself, without an adapter"):
        save_adapter(adapters, tmp_path / "x", role="reference")
    with pytest.raises(ModelError, match=r"does not fit .*28 of its weights differ"):
        load_adapter(adapters, init_adapter)
    with pytest.raises(
        ModelError, match=r"no adapter at .*; give a folder with adapter_config.json"
    ):
        load_adapter(adapters, tmp_path / "nothing")
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"did you mean '.*run/adapter'"):
        load_adapter(adapters, tmp_path / "run")
    with pytest.raises(ModelError, match=r"lora.targets names .no_such_layer"):
        AdapterSet(base(tiny), Lora(targets=["no_such_layer"]))
