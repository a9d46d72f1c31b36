"""Responses that are sampled ahead: from the policy a step before, once each, and saved with the checkpoint."""

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import lightning
import pytest
import torch
from lightning.pytorch import Callback

from lit_align.advantages.rloo import RLOO
from lit_align.data.datamodules import Prompts
from lit_align.errors import ConfigError, ModelError
from lit_align.models.samplers import Completion, Sampler, SamplingRequest
from lit_align.models.samplers.continuous import Continuous
from lit_align.models.samplers.in_process import InProcess
from lit_align.models.samplers.served import Served, request_seed
from lit_align.rewards.pattern import Pattern
from lit_align.rl.checks import check_staleness
from lit_align.rl.sampled_ahead import SampledAhead
from lit_align.seeding import step_seed
from tests.engine import running
from tests.rl.on_policy import stage, write_prompts
from tests.stages.runs import say

STEPS = 4  # of two prompts; an epoch has three


class Keep(Callback):
    """Keep the state before each step, as `LastCheckpoint` saves it.

    Args:
        folder: where to.
    """

    def __init__(self, folder):
        self.folder, self.gaps = folder, []

    def on_train_batch_start(self, trainer, module, *_):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")

    def on_train_batch_end(self, trainer, *_):
        self.gaps.append(trainer.callback_metrics["policy/sampler_gap"].item())


@dataclass(frozen=True)
class Counting(InProcess):
    """Remembers the seeds that it drew by; begins to sample in its own way, as one that computes elsewhere does."""

    seeds: list[int] = field(default_factory=list)

    def sample(self, model, request):
        self.seeds.append(request.seed)
        return super().sample(model, request)

    def start(self, model, request):
        return super().start(model, request)


class Pending(Sampler):
    """Begins to sample, and is done or not.

    Args:
        is_done: which.
    """

    def __init__(self, is_done):
        self.is_done = is_done

    def sample(self, model, request):
        return [[Completion([2], [-1.0], True)] for _ in request.prompts]

    def start(self, model, request):
        finish = partial(self.sample, model, request)
        finish.is_done = self.is_done
        return finish


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return write_prompts(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", rows=6)


@pytest.fixture(scope="module")
def server(tiny):
    with running(tiny) as server:
        yield server


def fit(tiny, prompts, folder, sampler, staleness, *, ckpt_path=None, data=None, **trainer):
    """A run, its weights at the end, and the largest gap of each step."""
    folder.mkdir(exist_ok=True)
    keep = Keep(folder)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=STEPS, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[keep], **trainer,
    )  # fmt: skip
    module = stage(
        tiny, Pattern("[A-Za-z0-9]"), RLOO(), num_generations=2, max_new_tokens=4, log_samples_every=0,
        sampler=sampler, staleness=staleness, optimizer=partial(torch.optim.AdamW, lr=0.05),
    )  # fmt: skip
    data = {"batch_size": 2, **(data or {})}
    trainer.fit(module, Prompts(str(prompts), **data), ckpt_path=ckpt_path)
    weights = {
        name: weight.detach().clone() for name, weight in module.adapters.trainable().items()
    }
    return weights, keep.gaps


def assert_equal(weights, others):
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=0, atol=0)


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_resumed_run_samples_each_step_once(staleness, tiny, prompts, tmp_path):
    sampler = Counting()
    weights, gaps = fit(tiny, prompts, tmp_path / "whole", sampler, staleness)
    assert sampler.seeds == [step_seed(0, number) for number in range(STEPS)]
    assert gaps[0] < 1e-5
    assert (max(gaps) > 1e-3) == bool(staleness)  # of the policy that had not learned yet
    for start in (1, 3):  # in an epoch, and at the beginning of one
        again = Counting()
        rest, _ = fit(
            tiny, prompts, tmp_path / "rest", again, staleness,
            ckpt_path=tmp_path / f"whole/{start}.ckpt",
        )  # fmt: skip
        assert again.seeds == [step_seed(0, n) for n in range(start + staleness, STEPS)]
        assert_equal(weights, rest)


@pytest.mark.parametrize("token_budget", [1000, 250], ids=["one micro-batch", "several"])
def test_a_step_whose_prompts_are_packed_in_another_order_is_sampled_once(
    token_budget, tiny, tmp_path
):
    words = (3, 30, 9, 1, 18, 24, 6, 14)  # of each prompt, so that rows are filled out of turn
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": f"{k} {say(k, n)}?"}) + "\n" for k, n in enumerate(words))
    )
    sampler = Counting()
    data = {"batch_size": 8, "token_budget": token_budget}
    fit(tiny, prompts, tmp_path / "run", sampler, 1, data=data)
    assert sampler.seeds == [step_seed(0, number) for number in range(STEPS)]


def test_an_epoch_that_the_trainer_cuts_is_not_sampled_past_its_end(tiny, prompts, tmp_path):
    sampler = Counting()
    fit(tiny, prompts, tmp_path, sampler, 1, limit_train_batches=2)
    assert sampler.seeds == [step_seed(0, number) for number in range(STEPS)]


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_server_that_fails_loses_nothing(staleness, tiny, prompts, tmp_path, server):
    server.plan()
    patient = partial(Served, [server.url], timeout=20.0)
    wanted, _ = fit(tiny, prompts, tmp_path / "whole", patient(), staleness)
    before = Counter(seeds_of(server))
    server.plan(*[None] * 4, "half", "half")  # while it samples for step 2
    with pytest.raises(ModelError, match=r"nothing was learned from this step: .*resume"):
        fit(tiny, prompts, tmp_path / "cut", patient(retries=0), staleness)
    server.plan()
    newest = max((tmp_path / "cut").glob("*.ckpt"), key=lambda path: int(path.stem))
    assert newest.stem == "2"
    weights, _ = fit(tiny, prompts, tmp_path / "rest", patient(), staleness, ckpt_path=newest)
    drawn = Counter(seeds_of(server))
    drawn.subtract(before)
    for number in (0, 1, 3):  # what failed is sampled again, and nothing else
        for place in (0, 1):
            assert drawn[request_seed(step_seed(0, number), place)] == 1
    if not staleness:  # else the responses that failed come from the newest policy
        assert_equal(weights, wanted)


@pytest.mark.parametrize("is_done", [False, True])
def test_what_is_under_way_is_saved_only_by_a_run_that_goes_on(is_done):
    request = SamplingRequest([[1]], max_new_tokens=1)
    ahead = SampledAhead(Pending(is_done))
    ahead.begin(1, None, request)
    saved = [[[[[2], [-1.0], True]]]]
    assert [entry["completions"] for entry in ahead.state(1, waits=False)] == saved * is_done
    assert [entry["completions"] for entry in ahead.state(1)] == saved
    assert ahead.state(2) == []


def seeds_of(server):
    """The seed of every completion, as often as it was requested."""
    seeds = Counter()
    for key, count in server.calls.items():
        seeds[int(key.split()[1])] += count
    return seeds


def test_what_cannot_be_meant_is_refused(tiny):
    with pytest.raises(ConfigError, match="staleness must be between 0 and 1, got 2"):
        stage(tiny, Pattern("a"), staleness=2)
    with pytest.raises(ConfigError, match="importance_sampling_cap must be positive, got 0"):
        stage(tiny, Pattern("a"), importance_sampling_cap=0)
    for sampler in (InProcess(), Continuous()):
        with pytest.raises(ConfigError, match=f"{type(sampler).__name__} samples in this process"):
            check_staleness(1, sampler)
        check_staleness(0, sampler)
    check_staleness(1, Served(["http://localhost:8000/v1"]))


def test_a_run_refuses_to_sample_ahead_in_its_own_process(tiny, prompts, tmp_path):
    with pytest.raises(ConfigError, match="set staleness to 0, or sampler to Served"):
        fit(tiny, prompts, tmp_path, InProcess(), 1)
