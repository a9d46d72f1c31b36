"""What is predicted is what a step takes."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
)

from lit_align.data.packing import pack
from lit_align.errors import TrainingError
from lit_align.memory.model import MicroBatch, explain_out_of_memory
from lit_align.memory.planner import MemoryPlanner, Plan
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.generate import sample
from lit_align.models.inventory import GIB
from lit_align.models.load import Base, load_config, load_model
from lit_align.models.tree_forward import TreeForward
from lit_align.types import Group, Tree
from tests.peak_memory import Peak
from tests.tiny import tokenizer

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def peak_of(adapters, *more):
    """Counts what is alive, the scales of 4-bit weights included: they are no parameters."""
    states = [
        getattr(getattr(module, "weight", None), "quant_state", None)
        for module in adapters.modules()
    ]
    scales = [one for state in states if state for one in (state.absmax, state.state2.absmax)]
    return Peak(adapters, *scales, *more)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sized") / "llama"
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=4096,
        tie_word_embeddings=False,
        eos_token_id=4095,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("quantization", "dtype", "gradient_checkpointing", "scored"),
    [
        ("none", "float32", True, 16),  # the layers' peak
        ("none", "float32", True, 200),  # the head's
        ("nf4", "float32", False, 16),
        ("nf4", "float32", True, 16),
        ("nf4", "bfloat16", False, 16),
        ("nf4", "bfloat16", True, 200),
    ],
)
def test_prediction_of_a_step_within_8_percent(
    path, quantization, dtype, gradient_checkpointing, scored
):
    tokens, base, lora = 256, Base(path, quantization, dtype), Lora(r=16)
    adapters = AdapterSet(
        load_model(base, CPU), lora, gradient_checkpointing=gradient_checkpointing
    ).train()
    optimizer = torch.optim.AdamW(adapters.trainable().values(), foreach=False)
    read, trees = TreeForward(adapters.model), packed(tokens - scored, [scored]).trees
    with peak_of(adapters) as seen:
        for _ in range(2):  # the first step makes the moments
            read(trees, statistics=True).logps.mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    found = MicroBatch(
        load_config(base),
        base,
        lora,
        tokens,
        scored,
        gradient_checkpointing=gradient_checkpointing,
        device=CPU,
    ).predict_memory()
    assert found.total == pytest.approx(seen.peak, rel=0.08)
    assert found.weights + found.adapters == pytest.approx(seen.start, rel=0.001)
    assert found.total - found.weights - found.adapters == pytest.approx(seen.above_start, rel=0.15)


@pytest.mark.parametrize("gradient_checkpointing", [True, False])
def test_experts_with_adapters_take_a_copy_and_a_gradient(tmp_path, gradient_checkpointing):
    """Experts that are far larger than anything else: what is predicted beside them hardly matters."""
    config = MixtralConfig(
        hidden_size=64,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=16,
        vocab_size=64,
        eos_token_id=1,
    )
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    base, lora = Base(str(tmp_path), "none", "float32"), Lora(r=2)
    adapters = AdapterSet(
        load_model(base, CPU), lora, gradient_checkpointing=gradient_checkpointing
    ).train()
    read, trees = TreeForward(adapters.model), packed(16, [16]).trees
    with peak_of(adapters) as seen:
        read(trees).logps.mean().backward()
    batch = MicroBatch(config, base, lora, 32, 16, gradient_checkpointing, device=CPU)
    found = batch.predict_memory()
    without_moments = found.total - 2 * found.adapters
    assert without_moments == pytest.approx(seen.peak, rel=0.1)
    assert found.weights + found.adapters == pytest.approx(seen.start, rel=0.01)


def packed(prompt, responses, groups=1):
    tree = Tree(
        list(range(prompt)),
        [list(range(n)) for n in responses],
        [[True] * n for n in responses],
        Group("", [""] * len(responses)),
    )
    (batch,) = pack([tree] * groups, groups * tree.tokens, dense=True)
    return batch


@pytest.mark.parametrize(
    ("quantization", "dtype", "gradient_checkpointing"),
    [("none", "float32", True), ("nf4", "float32", False), ("nf4", "bfloat16", True)],
)
def test_phases_of_sampling_within_8_percent_of_what_they_take(
    path, quantization, dtype, gradient_checkpointing, monkeypatch
):
    """Four prompts of 16 tokens, four responses of 48 each, and a critic: what RL does in an iteration on a GPU."""
    monkeypatch.setattr("lit_align.models.decoding.dense_base.free_memory", lambda: 0)
    base, lora, prompts, samples, new = Base(path, quantization, dtype), Lora(r=16), 4, 4, 48
    options = {
        "trained_roles": ("policy", "critic"),
        "head_sizes": {"critic": 1},
        "gradient_checkpointing": gradient_checkpointing,
    }
    adapters = AdapterSet(load_model(base, CPU), lora, **options).train()
    optimizer = torch.optim.AdamW(adapters.trainable().values(), foreach=False)
    read, trees = TreeForward(adapters.model), packed(16, [new] * samples, prompts).trees

    def learn():
        loss = read(trees).logps.sum()
        with adapters.activate("critic", True):
            loss = loss + adapters.head("critic")(read.hidden(trees)).square().sum()
        loss.backward()
        optimizer.step()

    def ask():
        asked = [list(range(5, 21))] * prompts
        with adapters.activate("policy", training=False) as model:
            sample(
                model,
                tokenizer(),
                asked,
                max_new_tokens=new,
                num_generations=samples,
                batch_size=prompts * samples,
            )

    def read_prompts():
        class Enough(Exception):
            pass

        def choose(*_):
            raise Enough

        with monkeypatch.context() as patch:
            patch.setattr("lit_align.models.decoding.batch.choose_tokens", choose)
            with pytest.raises(Enough):
                ask()

    @torch.no_grad()
    def score():
        with adapters.activate("policy", training=False):
            read(trees, statistics=True)

    learn()  # makes the moments
    optimizer.zero_grad()
    moments = [value for state in optimizer.state.values() for value in state.values()]
    measured = {}
    for phase, run in {
        "prefill": read_prompts,
        "decode": ask,
        "score": score,
        "update": learn,
    }.items():
        with peak_of(adapters, *moments) as seen:
            run()
        measured[phase] = seen.peak
    plan = Plan(
        base,
        lora,
        10_000,
        prompts,
        16,
        gradient_checkpointing=gradient_checkpointing,
        trained=2,
        reference=True,
    )
    plan = replace(plan, num_generations=samples, max_new_tokens=new)
    found = {
        name: memory.total
        for name, memory in MemoryPlanner(load_config(base), CPU).phases(plan).items()
    }
    assert found.pop("load") < min(found.values())
    assert found == pytest.approx(measured, rel=0.08)


@pytest.mark.parametrize(("quantization", "dtype"), [("none", "float32"), ("nf4", "bfloat16")])
@pytest.mark.parametrize("budget", [64, 200, 10_000])
def test_prompts_that_are_read_in_parts_take_what_was_predicted(
    path, quantization, dtype, budget, monkeypatch
):
    """32 prompts of 32 tokens: two at once, six, or all; until the first token would be drawn."""

    class Enough(Exception):
        pass

    def draw(*_):
        raise Enough

    monkeypatch.setattr("lit_align.models.decoding.batch.choose_tokens", draw)
    monkeypatch.setattr("lit_align.models.decoding.dense_base.free_memory", lambda: 0)
    base, lora = Base(path, quantization, dtype), Lora(r=16)
    adapters = AdapterSet(load_model(base, CPU), lora)
    with (
        peak_of(adapters) as seen,
        adapters.activate("policy", training=False) as model,
        pytest.raises(Enough),
    ):
        sample(model, tokenizer(), [list(range(5, 37))] * 32, max_new_tokens=1, token_budget=budget)
    plan = Plan(base, lora, budget, 32, 32, num_generations=1, max_new_tokens=1)
    memory = MemoryPlanner(load_config(base), CPU).phases(plan)["prefill"]
    assert memory.total - memory.optimiser == pytest.approx(
        seen.peak, rel=0.08
    )  # there is none here


@pytest.mark.parametrize("members", [1, 3])
def test_every_member_of_an_ensemble_keeps_its_activations(path, members):
    base, lora, names = (
        Base(path, "nf4", "float32"),
        Lora(r=16),
        [f"reward{i}" for i in range(members)],
    )
    adapters = AdapterSet(
        load_model(base, CPU), lora, trained_roles=names, head_sizes=dict.fromkeys(names, 1)
    ).train()
    optimizer = torch.optim.AdamW(adapters.trainable().values(), foreach=False)
    read, trees = TreeForward(adapters.model), packed(128, [64, 64], 4).trees

    def score(name):
        with adapters.activate(name):
            return adapters.head(name)(read.last_hidden(trees)).sum()

    with peak_of(adapters) as seen:
        for _ in range(2):
            sum(map(score, names)).backward()
            optimizer.step()
            optimizer.zero_grad()
    plan = Plan(base, lora, 1024, 4, 256, scored=0.0, trained=members)
    assert MemoryPlanner(load_config(base), CPU).phases(plan)["update"].total == pytest.approx(
        seen.peak, rel=0.1
    )


@pytest.mark.parametrize("gradient_checkpointing", [True, False])
def test_the_reference_reads_while_the_policy_waits(path, gradient_checkpointing):
    base, lora = Base(path, "nf4", "float32"), Lora(r=16)
    adapters = AdapterSet(
        load_model(base, CPU), lora, gradient_checkpointing=gradient_checkpointing
    ).train()
    read, trees = TreeForward(adapters.model), packed(128, [64, 64], 4).trees
    with peak_of(adapters) as seen:
        policy = read(trees).logps
        seen.peak = 0
        with torch.no_grad(), adapters.activate("reference", training=False):
            read(trees)
        assert policy.requires_grad
    plan = Plan(
        base,
        lora,
        1024,
        4,
        256,
        scored=0.5,
        reference=True,
        gradient_checkpointing=gradient_checkpointing,
    )
    memory = MemoryPlanner(load_config(base), CPU).phases(plan)["score"]
    assert memory.total - memory.optimiser == pytest.approx(
        seen.peak, rel=0.08
    )  # there is none here


def llama_8b():
    return LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        tie_word_embeddings=False,
    )


def test_the_static_parts_of_an_8b_model():
    """6.98e9 weights in 4.127 bits, 1.05e9 in 16, and 41.9e6 of adapters (r 16) at 4 + 12 bytes."""
    found = MicroBatch(
        llama_8b(), Base("x", dtype="bfloat16"), Lora(), 1024, 1024, device=GPU
    ).predict_memory()
    layer = 4096 * (4096 * 2 + 1024 * 2 + 14336 * 3)
    assert (
        found.weights
        == 32 * layer * (4 + 8 / 64 + 32 / (64 * 256)) / 8 + (2 * 128256 * 4096 + 65 * 4096) * 2
    )
    adapters = 32 * 16 * (4 * 4096 + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    assert (found.adapters, found.optimiser) == (4 * adapters, 12 * adapters)
    assert found.total < 24 * GIB
    assert MicroBatch(
        llama_8b(), Base("x", dtype="bfloat16"), Lora(targets=["q_proj"]), 9, 9
    ).predict_memory().adapters == (4 * 32 * 16 * 8192)


def ppo(**changes):
    """512 + 512 tokens, 32 responses at a time; a reward model scores 8 of them at once, and 2 are learned from."""
    adapter = 4 * 32 * 16 * (4 * 4096 + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    settings = {
        "base": Base("x", dtype="bfloat16"),
        "lora": Lora(),
        "token_budget": 2048,
        "batch_size": 32,
        "tree": 512,
    }
    settings |= {
        "num_generations": 1,
        "max_new_tokens": 512,
        "trained": 2,
        "frozen": adapter,
        "reward_budget": 8192,
    }
    return Plan(**settings | changes)


def test_ppo_of_an_8b_model_fits_in_12_gib_with_all_its_roles():
    """Keys and values of 32 sequences of 1024 tokens are 4 GiB: 32 layers of 2 x 1024 numbers in 2 bytes."""
    found = MemoryPlanner(llama_8b()).phases(ppo())
    assert list(found) == ["load", "prefill", "decode", "reward", "score", "update"]
    assert found["decode"].saved == 4 * GIB
    assert found["prefill"].saved == 2.25 * GIB  # with room for the next 64 of 512 tokens
    static = found["load"].weights + found["load"].adapters
    assert found["update"].optimiser == 2 * found["load"].adapters  # of the two in three that learn
    assert all(static < memory.total < 12 * GIB for memory in found.values())
    assert found["prefill"].total < found["decode"].total
    assert max(memory.total for memory in found.values()) < 10.6 * GIB


def test_demonstrations_beside_it_may_be_what_needs_most():
    """Alone in their update they need what a supervised step needs, and the critic waits for nothing."""
    preview, short = MemoryPlanner(llama_8b()), ppo(batch_size=1)
    before = preview.phases(short)["update"]
    beside = preview.phases(replace(short, ptx_batch=2, ptx_tree=1024))["update"]
    # two conversations: each layer's input, the last norm with its gradient, and one mask
    assert beside.saved == 2048 * (32 * 4096 * 2 + 2 * 4096 * 2 + 1024 * 2)
    assert (beside.adapters, beside.optimiser) == (before.adapters, before.optimiser)
    assert beside.total > before.total
    assert preview.phases(replace(short, ptx_batch=2, ptx_tree=8))["update"] == before


@pytest.mark.parametrize(
    ("file", "more"),
    [
        ("ppo", {"adapters": 2}),
        (
            "pipeline/3-ppo",
            {"adapters": 2, "others": 2 * 0.6e9},
        ),  # the second reward has 0.6e9 weights of its own
        ("rlaif_ppo", {"adapters": 0}),
    ],
)
def test_configurations_for_24_gib_fit(file, more):
    """With the longest prompts that they let through."""
    settings = yaml.safe_load((Path(__file__).parents[2] / f"configs/{file}.yaml").read_text())
    rl, data = settings["model"]["init_args"], settings["data"]["init_args"]
    qwen3_8b = Qwen3Config(
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        tie_word_embeddings=False,
    )
    adapter = 4 * 36 * rl["lora"]["r"] * (4 * 4096 + 2 * (4096 + 1024) + 3 * (4096 + 12288))
    names = ("token_budget", "batch_size")
    plan = Plan(
        base=Base(**rl["base"]),
        lora=Lora(**rl["lora"]),
        **{name: data[name] for name in names},
        tree=data["max_length"],
        num_generations=rl["num_generations"],
        max_new_tokens=rl["max_new_tokens"],
        trained=2,
        init_adapter="init_adapter" in rl,
        frozen=round(more["adapters"] / 2 * adapter + more.get("others", 0)),
        reward_budget=8192 if more["adapters"] else 0,
        reference=True,
    )
    assert MemoryPlanner(qwen3_8b).verdict(plan, 24).startswith("It fits: ")


def test_the_verdict_names_settings_and_what_they_give():
    preview, plan = (
        MemoryPlanner(llama_8b()),
        ppo(token_budget=8192, batch_size=8, num_generations=4),
    )
    update = preview.phases(plan)["update"].total
    assert preview.peak(plan) == update
    fits = preview.verdict(plan, 24)
    assert fits.startswith(
        f"It fits: {update / GIB:.2f} GiB, and 1.5 GiB for CUDA itself, on a card of 24 GiB."
    )
    assert "It needs model.gradient_checkpointing: without it, " in fits
    less = preview.peak(replace(plan, token_budget=4096))
    assert less < 12 * GIB < update
    assert f"Enough would be data.token_budget: 4096 ({less / GIB:.2f} GiB)" in preview.verdict(
        plan, 13.5
    )
    hopeless = preview.verdict(plan, 4)
    assert hopeless.startswith("It does not fit: ")
    assert hopeless.endswith(" GiB; for less, take a smaller base.")
    assert "model.gradient_checkpointing could be false: " in preview.verdict(plan, 200)
    whole = replace(
        plan,
        base=replace(plan.base, quantization="none"),
        gradient_checkpointing=False,
        token_budget=2560,
    )
    assert {"model.gradient_checkpointing", "model.base.quantization"} < preview.fixes(
        whole, 8 * GIB
    ).keys()
    for setting, changed in preview.fixes(whole, 8 * GIB).items():
        assert preview.peak(changed) < preview.peak(whole), setting


def test_out_of_memory_names_three_settings_that_help():
    config, base = llama_8b(), Base("x", "none", "bfloat16")
    found = MicroBatch(
        config, base, Lora(), 8192, 4096, gradient_checkpointing=False, device=GPU
    ).out_of_memory_message()
    now = MicroBatch(
        config, base, Lora(), 8192, 4096, gradient_checkpointing=False, device=GPU
    ).predict_memory()
    less = MicroBatch(config, base, Lora(), 8192, 4096, device=GPU).predict_memory()
    assert found.startswith(
        f"out of memory with 8192 tokens, predicted {now.total / GIB:.2f} GiB (weights 14.96, "
    )
    assert "data.token_budget: 4096 (" in found
    assert "base.quantization: nf4 (" in found
    assert found.endswith(f" or gradient_checkpointing: true ({less.total / GIB:.2f} GiB)")
    found = MicroBatch(config, Base("x"), Lora(), 8192, 4096, device=GPU).out_of_memory_message()
    for setting in ("data.token_budget: 4096 (", "data.max_length: 4096 (", "lora.r: 8 ("):
        assert setting in found
    sizes = [float(part.split(" GiB")[0]) for part in found.split("(")[2:]]
    assert len(sizes) == 3
    assert max(sizes) < float(found.split("predicted ")[1].split(" GiB")[0])
    assert math.isclose(sizes[0], sizes[1])


def test_out_of_memory_counts_everybody_who_learns(path):
    """Policy and critic over four rows: twice the adapters, both wait for the backward pass, and masks are of a row."""
    base, lora = Base(path, "nf4", "float32"), Lora(r=16)
    adapters = AdapterSet(
        load_model(base, CPU), lora, trained_roles=("policy", "critic"), head_sizes={"critic": 1}
    ).train()
    trees = packed(16, [48] * 4, 4).trees
    with (
        pytest.raises(TrainingError) as caught,
        explain_out_of_memory(adapters, base, lora, trees, True),
    ):
        raise torch.OutOfMemoryError
    plan = Plan(base, lora, 10_000, 4, 16, scored=192 / 208, trained=2)
    found = MemoryPlanner(load_config(base), CPU).phases(replace(plan, tree=208))["update"]
    assert f"out of memory with 832 tokens, predicted {found.total / GIB:.2f} GiB" in str(
        caught.value
    )
    less = MicroBatch(
        load_config(base), base, lora, 416, 384, longest=208, trained=2, device=CPU
    ).predict_memory()
    assert f"data.token_budget: 416 ({less.total / GIB:.2f} GiB)" in str(caught.value)


def test_settings_are_read_without_weights(path, smollm2):
    assert load_config(Base(path)).hidden_size == 128
    assert load_config(Base(smollm2)).num_hidden_layers == 30
