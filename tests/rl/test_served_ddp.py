"""Of several processes the first has the server sample for all: each prompt once, from one adapter a step."""

from functools import partial

import pytest
import torch

from lit_align.advantages.rloo import RLOO
from lit_align.data.datamodules import Prompts
from lit_align.models.samplers.served import Served
from lit_align.rewards.pattern import Pattern
from tests.engine import running
from tests.processes import Trace, assert_learned_the_same, make_trainer, run_processes
from tests.rl.on_policy import stage, write_prompts

STEPS, PROMPTS = 3, 4
STALENESS = (0, 1)


def learn(tiny, folder, url, world):
    """In this process of ``world``: a run from the newest policy, a run ahead of it, and the rest of that one."""
    for staleness in STALENESS:
        run = folder / f"{world} {staleness}"
        fit(tiny, folder, run, url, staleness)
    fit(tiny, folder, folder / f"{world} resumed", url, 1, ckpt_path=run / "0.ckpt")


def fit(tiny, folder, run, url, staleness, ckpt_path=None):
    trace = Trace()
    trainer = make_trainer(run, max_steps=STEPS, callbacks=[trace])
    module = stage(
        tiny, Pattern("[A-Za-z0-9]"), RLOO(), num_generations=2, max_new_tokens=4,
        log_samples_every=0, sampler=Served([url]), staleness=staleness,
        optimizer=partial(torch.optim.AdamW, lr=0.01),
    )  # fmt: skip
    if ckpt_path is None:
        trace.on_train_batch_end = partial(_save_first, trace, run / "0.ckpt")
    trainer.fit(
        module, Prompts(str(folder / "prompts.jsonl"), batch_size=PROMPTS), ckpt_path=ckpt_path
    )
    weights = {key: value.detach() for key, value in module.trained_parameters().items()}
    torch.save((trace.steps, weights), run / f"{trainer.global_rank}.pt")


def _save_first(trace, path, trainer, *args):
    Trace.on_train_batch_end(trace, trainer, *args)
    if trainer.global_step == 1:
        trainer.save_checkpoint(path)


@pytest.fixture(scope="module")
def learned(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_prompts(folder / "prompts.jsonl", rows=8)
    calls = {}
    for world in (1, 2):
        with running(tiny) as server:
            output = folder / f"{world}.txt"
            status = run_processes(world, partial(learn, tiny, folder, server.url, world), output)
            assert status == [0] * world, output.read_text()[-5000:]
            calls[world] = server.calls
    return folder, calls


@pytest.mark.parametrize("run", [*STALENESS, "resumed"])
def test_two_processes_learn_what_one_does(learned, run):
    folder, _ = learned
    assert_learned_the_same(folder / f"2 {run}", folder / f"1 {run}", 2)


def test_each_prompt_is_sampled_once(learned):
    """Three runs; the resumed one has the responses of its first step in the checkpoint."""
    _, calls = learned
    assert sum(calls[2].values()) == sum(calls[1].values()) == PROMPTS * (2 * STEPS + STEPS - 2)
