"""Several processes sample, score and learn what one does, by every algorithm."""

import json
from collections.abc import Callable
from functools import partial

import pytest
import torch

from lit_align.advantages.gae import GAE
from lit_align.advantages.grpo import GRPO
from lit_align.advantages.reinforce import Reinforce
from lit_align.advantages.reverse_kl import ReverseKL
from lit_align.advantages.rloo import RLOO
from lit_align.advantages.top_entropy import TopEntropy
from lit_align.cli.main import main
from lit_align.data.datamodules import Prompts
from lit_align.judges.local_model import LocalModel
from lit_align.objectives.gkd import GKD
from lit_align.rewards.judge_score import JudgeScore
from lit_align.rewards.length import Length
from lit_align.rewards.pattern import Pattern
from lit_align.rewards.teacher import Teacher
from lit_align.rewards.weighted import Weighted
from lit_align.rl.kl_control import KLControl
from lit_align.rl.pretraining_mix import PretrainingMix
from tests.processes import Trace, assert_learned_the_same, make_trainer, run_processes
from tests.rl.on_policy import add_hints, rl_arguments, stage, table, write_prompts
from tests.stages.runs import start, write_chats

WORLDS = (1, 2, 4)
MARK = "{{ prompt }}\n{{ response | quoted }}\n{{ low }}-{{ high }}:"


def ppo(tiny, folder):
    """A critic, demonstrations, whitening, an adaptive coefficient, two rewards, several passes and minibatches."""
    module = stage(
        tiny,
        Weighted([Length(max_words=1), Pattern("a|e|i")], [1.0, 0.5]),
        GAE(whiten=True),
        ptx=PretrainingMix(str(folder / "chats.jsonl"), batch_size=3),
        num_generations=2,
        num_iterations=2,
        num_minibatches=2,
        whiten_rewards=True,
    )
    module.kl = KLControl(0.1, target=0.001, horizon=20)
    return module


def early_stop(tiny, folder):
    """Several updates, of which some are left out once the policy has moved."""
    return stage(
        tiny,
        Pattern("a|e|i"),
        RLOO(whiten=True),
        num_generations=2,
        num_iterations=6,
        target_kl=1e-5,
    )


def grpo(tiny, folder):
    """A judge in memory marks, each process some; KL in the loss; uncertain tokens learn; sequences weigh alike."""
    module = stage(
        tiny,
        JudgeScore(LocalModel(), template=str(folder / "mark.j2"), high=3),
        TopEntropy(GRPO(), share=0.7),
        num_generations=3,
        num_minibatches=2,
        loss_aggregation="sequence",
    )
    module.kl = KLControl(0.1, where="loss", estimator="k3")
    return module


def reinforce(tiny, folder):
    """The baseline is a mean over iterations; KL in the loss, of one minibatch."""
    module = stage(
        tiny,
        Pattern("a|e|i"),
        Reinforce(whiten=True),
        num_generations=1,
        loss_aggregation="constant",
    )
    module.kl = KLControl(0.1, where="loss", estimator="k2")
    return module


def refilled(tiny, folder):
    """Of two responses often both or none have a letter: such groups are refilled, and what stays is dropped."""
    return stage(
        tiny, Pattern("[a-z]"), GRPO(), num_generations=2, equal_scores="refill", max_refills=2
    )


def distilled(tiny, folder):
    """Whole distributions of an average of the policy that is shown more, over two minibatches."""
    teacher = Teacher("average", rate=0.3, column="hint")
    module = stage(tiny, teacher, ReverseKL(), num_generations=2, num_minibatches=2)
    module.objective, module.kl = GKD(), KLControl(0.0)
    return module


ALGORITHMS: dict[str, Callable] = {
    "ppo": ppo,
    "early_stop": early_stop,
    "grpo": grpo,
    "reinforce": reinforce,
    "refilled": refilled,
    "distilled": distilled,
}
RUNS = [*((2, name) for name in ALGORITHMS), (4, "ppo"), (4, "grpo")]
"""Numbers of processes, and what they run."""


def learn(tiny, folder, world):
    """Every algorithm in turn, in this process of ``world``; what each rank has in the end."""
    for name, make in ALGORITHMS.items():
        if world > 1 and (world, name) not in RUNS:
            continue
        module = make(tiny, folder)
        module.optimizer = partial(torch.optim.AdamW, lr=0.003)
        module.max_new_tokens = 6
        module.shaping = module.shaping.__class__(6)
        module.log_samples_every = 1
        trace = Trace()
        run = folder / str(world) / name
        trainer = make_trainer(run, max_steps=3, callbacks=[trace], limit_val_batches=1)
        data = Prompts(
            str(folder / "prompts.jsonl"),
            str(folder / "prompts.jsonl"),
            batch_size=3,
            token_budget=130,
            max_length=128,
            prepared_cache=None,
        )
        trainer.fit(module, data)
        weights = {key: value.detach() for key, value in module.trained_parameters().items()}
        torch.save((trace.steps, weights), run / f"{trainer.global_rank}.pt")


@pytest.fixture(scope="module")
def learned(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    add_hints(write_prompts(folder / "prompts.jsonl", rows=5))
    write_chats(folder / "chats.jsonl", rows=5)
    (folder / "mark.j2").write_text(MARK)
    for world in WORLDS:
        output = folder / f"{world}.txt"
        status = run_processes(world, partial(learn, tiny, folder, world), output)
        assert status == [0] * world, output.read_text()[-5000:]
    return folder


@pytest.mark.parametrize(("world", "name"), RUNS)
def test_processes_learn_what_one_does(learned, world, name):
    """Samples, every column of the trace, and the weights on each process."""
    runs = learned / "1" / name, learned / str(world) / name
    one, several = ([json.loads(line) for line in (run / "samples.jsonl").open()] for run in runs)
    assert [row["response"] for row in several] == [row["response"] for row in one]
    assert len({row["response"] for row in one}) > len(one) // 2
    expected, _ = torch.load(runs[0] / "0.pt")
    assert len(expected) > 3
    assert_learned_the_same(runs[1], runs[0], world)


def test_the_runs_show_what_they_are_meant_to(learned):
    """Early stops come in mid-iteration, the coefficient moves, demonstrations are learned, runs differ."""
    updates = [
        step["updates"]
        for step in torch.load(learned / "1/early_stop/0.pt")[0]
        if "updates" in step
    ]
    assert any(1 <= number < 6 for number in updates), updates
    steps = torch.load(learned / "1/ppo/0.pt")[0]
    refills = [step for step in torch.load(learned / "1/refilled/0.pt")[0] if "updates" in step]
    assert sum(step["objective/prompts_refilled"] for step in refills) > 0
    assert any(0 < step["objective/frac_equal_dropped"] < 1 for step in refills), refills
    coefficients = {step["objective/kl_coefficient"] for step in steps if "loss/ptx" in step}
    assert len(coefficients) > 1


def test_a_reward_that_fails_is_told_once(tiny, learned, tmp_path):
    arguments = rl_arguments(
        tiny,
        learned / "prompts.jsonl",
        tmp_path,
        *("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_steps=1"),
    )
    kept = [word for word in arguments if not word.startswith("--model.reward")]
    kept.insert(kept.index("--model=RL") + 1, "--model.reward=LastNumber")
    output = tmp_path / "output.txt"
    assert run_processes(2, partial(main, kept), output) == [1, 1]
    text = output.read_text()
    assert text.count("has no number in its column 'answer'") == 1, text
    assert "Traceback" not in text
    assert len((tmp_path / "0/bad_reward.jsonl").read_text().splitlines()) == 4


def test_the_command_runs_on_two_processes(tiny, tmp_path):
    process = start(
        [
            *("fit", "-c", "configs/tiny/ppo.yaml", f"--model.base.path={tiny}"),
            *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
            *("--trainer.devices=2", "--trainer.strategy=ddp", f"--run={tmp_path}"),
        ]
    )
    output = process.communicate(timeout=400)[0]
    assert process.returncode == 0, output
    assert len(table(tmp_path, "objective/scores")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    rows = [json.loads(line) for line in (tmp_path / "0/samples.jsonl").open()]
    assert [row["step"] for row in rows] == [0] * 4
