"""The time of a step adds up from its parts: which passes there are, how they are shared, and what overlaps."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_align.cli.time_report import TimeOptions, describe, shards_of
from lit_align.errors import ConfigError
from lit_align.models.load import Base, load_tokenizer
from lit_align.models.lora import Lora
from lit_align.rl.stage import RL
from lit_align.stages.sft import SFT
from lit_align.throughput.parts import PartTimes
from lit_align.throughput.prediction import Cluster, StepTime, alternatives, predict
from lit_align.throughput.short_model import short_model
from lit_align.throughput.work import Sampling, StepWork, typical_step, with_responses
from lit_align.types import Group, Tree


def prompt(tokens):
    return Tree([1] * tokens, [], [], Group("", []))


def rl_work(prompts=8, **settings):
    trees = with_responses([prompt(10)] * prompts, count=2, tokens=5, vocabulary=50)
    usual = {"token_budget": 1000, "sampling": Sampling(2, 5, prompts), "has_reference": True}
    return StepWork(trees, **{**usual, **settings})


def counts(work, processes=1):
    """Tokens of each phase and kind of pass."""
    tokens = {}
    for phase, kind, batch, times in work.passes(processes):
        number = times * sum(tree.tokens for tree in batch.source)
        tokens[phase, kind] = tokens.get((phase, kind), 0) + number
    return tokens


def test_dpo_reads_each_token_once_for_the_reference_and_once_to_learn():
    trees = with_responses([prompt(10)] * 4, count=2, tokens=5, vocabulary=50)
    assert counts(StepWork(trees, 40, has_reference=True)) == {
        ("score", "read"): 80,
        ("update", "update"): 80,
    }
    assert counts(StepWork(trees, 40)) == {("update", "update"): 80}


def test_rl_reads_what_the_first_update_does_not():
    """Eight trees of 20 tokens: the pass of a first update that is one micro-batch is made while scoring."""
    kinds = ("update", "update hidden")
    assert counts(rl_work(kinds=kinds)) == {
        ("score", "read"): 160,  # reference
        ("score", "read entropy"): 160,  # policy
        ("score", "read hidden"): 160,  # critic
        ("update", "read entropy"): -160,
        ("update", "read hidden"): -160,
        ("update", "update"): 160,
        ("update", "update hidden"): 160,
    }
    halves = counts(rl_work(kinds=kinds, num_minibatches=2))
    assert halves["score", "read"] == 160
    # the half of the first update, and the other
    assert halves["score", "read hidden"] == halves["score", "read entropy"] == 80 + 80
    assert halves["update", "read entropy"] == -80
    cut = counts(rl_work(kinds=kinds, token_budget=60, needs_policy=True))
    assert cut["score", "read hidden"] == cut["score", "read entropy"] == 160
    assert ("update", "read entropy") not in cut
    assert counts(rl_work(num_iterations=3))["update", "update"] == 480
    assert counts(rl_work(reward_budget=30))["reward", "read hidden"] == 160


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 3))
def test_the_first_process_has_at_least_its_share(prompts, processes, minibatches):
    work = rl_work(prompts, num_minibatches=minibatches)
    alone, shared = counts(work), counts(work, processes)
    assert shared["update", "update"] * processes >= alone["update", "update"]
    assert shared["update", "update"] <= alone["update", "update"]
    assert len(work.prompts(processes)) == -(-prompts // processes)


class Parts:
    """Known times: a second for ten tokens that are read, three to learn from them, and so on."""

    def passes(self, kind, batches):
        per_token = {
            "read": 0.1, "read entropy": 0.1, "read hidden": 0.05, "update": 0.3, "update hidden": 0.2,
        }[kind]  # fmt: skip
        return per_token * sum(batch.trees.input_ids.numel() for batch in batches)

    def decoding(self, prompts, num_generations, tokens, budget):
        return 1.0 * tokens

    def optimizer(self):
        return 0.5


def test_a_step_is_the_sum_of_its_phases():
    work = rl_work(kinds=("update", "update hidden"), optimizer_steps=1)
    alone = predict(work, Parts(), Cluster(), adapter_bytes=10**9)
    assert alone.phases == pytest.approx(
        {"sample": 5, "score": 16 + 24, "update": 48 + 32 - 24 + 0.5}
    )
    assert alone.total == pytest.approx(101.5)
    assert alone.bottleneck == "update"
    four = predict(work, Parts(), Cluster(4, link=2.0), adapter_bytes=10**9)
    assert four.phases == pytest.approx(
        {"sample": 5, "score": 10, "update": 14 + 0.5, "exchange": 2 * 3 / 4 * 1 / 2}
    )
    served = predict(work, Parts(), Cluster(sampler_speed=20.0), adapter_bytes=0)
    assert served.phases["sample"] == 80 / 20
    ahead = predict(work, Parts(), Cluster(sampler_speed=0.1, staleness=1), adapter_bytes=0)
    assert ahead.total == ahead.phases["sample"] == 800


def test_what_is_asked_for_is_compared_with_one_card():
    assert alternatives(Cluster()) == [Cluster()]
    asked = Cluster(4, 10.0, 100.0, 1)
    assert [str(cluster) for cluster in alternatives(asked)] == [
        "1 card",
        "4 cards",
        "4 cards, served, ahead",
    ]
    times = {
        Cluster(): StepTime({"sample": 30, "update": 10}),
        asked: StepTime({"sample": 8, "update": 6}, True),
    }
    assert describe(times) == (
        "On 4 cards, served, ahead a step takes 8 s, and sample most of it (57%); on 1 card it takes 40 s, 5.00 times "
        "as long. Sampling goes on beside the other phases, so the longer of the two counts."
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cards": 0}, "cards must be at least 1, got 0"),
        ({"sampler": "vllm"}, "sampler is 'vllm'; give one of in_process, served"),
        ({"sampler": "served"}, "cannot be measured here; give --sampler_speed"),
        ({"sampler_speed": 5.0}, "add --sampler served"),
        ({"link": 0.0}, "link must be positive"),
        ({"response_tokens": 64}, "is predicted where --cards says on how many"),
    ],
)
def test_options_that_mean_nothing_are_refused(settings, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        TimeOptions(**settings)


@pytest.mark.parametrize(
    ("options", "stage", "data", "message"),
    [
        ({"sampler": "served", "sampler_speed": 9.0}, SFT, {}, "SFT samples nothing in training"),
        ({"cards": 2}, SFT, {"repeats_rows": False}, "cannot be predicted with SimpleNamespace"),
        ({"cards": 2, "response_tokens": 9}, RL, {}, "over model.max_new_tokens, 8; lower it"),
    ],
)
def test_what_a_run_does_not_do_is_not_predicted(options, stage, data, message):
    stage = stage.__new__(stage)
    object.__setattr__(stage, "max_new_tokens", 8)
    with pytest.raises(ConfigError, match=message):
        TimeOptions(**options).check(stage, SimpleNamespace(**data))


@pytest.mark.parametrize(
    ("devices", "cards", "shards"),
    [(4, None, 8), ("2", None, 4), ([0, 3, 5], None, 6), ("auto", 4, 4)],
)
def test_the_processes_that_share_a_base_are_counted(devices, cards, shards):
    trainer = SimpleNamespace(strategy="sharded_base", devices=devices, num_nodes=2)
    assert shards_of(SimpleNamespace(trainer=trainer, cards=cards)) == shards
    trainer.strategy = "ddp"
    assert shards_of(SimpleNamespace(trainer=trainer, cards=cards)) == 1


def test_processes_that_nobody_counted_are_asked_for():
    for devices in ("auto", -1, "-1"):
        trainer = SimpleNamespace(strategy="sharded_base", devices=devices, num_nodes=1)
        with pytest.raises(ConfigError, match=f"trainer.devices is {devices}, .* add --cards"):
            shards_of(SimpleNamespace(trainer=trainer, cards=None))


def test_a_typical_step_has_the_median_number_of_tokens():
    trees = [prompt(tokens) for tokens in (1, 2, 3, 4, 1000)]
    assert sum(tree.tokens for tree in typical_step(trees, 2)) < 1000
    assert len(typical_step(trees, 9)) == 5


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_short_model_has_the_shapes_of_the_whole_one(tiny, quantization):
    base = Base(str(tiny), quantization, "float32")
    one, two = (short_model(base, layers, torch.device("cpu")) for layers in (1, 2))
    assert [len(model.model.layers) for model in (one, two)] == [1, 2]
    assert type(one.model.layers[0].mlp.up_proj) is type(two.model.layers[1].mlp.up_proj)
    assert ("4bit" in type(one.model.layers[0].mlp.up_proj).__name__) == (quantization == "nf4")


def test_parts_are_measured_once_and_extrapolated(tiny):
    """By a clock that ticks with each layer that is computed, twice for gradients."""
    base = Base(str(tiny), "none", "float32")
    parts = PartTimes(
        base, Lora(r=2, alpha=4), ("policy",), load_tokenizer(base), False, torch.device("cpu"), lambda: ticks[0]
    )  # fmt: skip
    ticks, (run,) = [0], parts._runs.values()
    run.adapters.model.model.layers[0].register_forward_pre_hook(
        lambda *_: ticks.__setitem__(0, ticks[0] + 1)
    )
    work = StepWork(with_responses([prompt(10)] * 3, 2, 5, 50), 20)
    (*_, batch) = (one_pass.batch for one_pass in work.passes(1))
    assert parts.passes("read", [batch] * 5) == 5
    before = ticks[0]
    assert parts.passes("read", [batch] * 5) == 5
    assert ticks[0] == before
    assert parts.decoding([[1, 2, 3]], 2, tokens=6, budget=100) == pytest.approx(6)
