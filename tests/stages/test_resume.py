"""A run that is killed, or told to stop, continues as if nothing had happened."""

import signal
import time
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer

import lit_align
from lit_align.callbacks.last_checkpoint import LastCheckpoint
from lit_align.cli.main import main
from lit_align.data.datamodules import Comparisons
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base
from lit_align.objectives.cross_entropy import CrossEntropy
from lit_align.objectives.dpo import DPO
from lit_align.objectives.mix import Mix
from lit_align.stages.checkpoints import SafeIO
from lit_align.stages.preference import Preference
from tests.forked import wait_for
from tests.stages.runs import arguments, folder_of, start, trace, write_pairs

EPOCHS = (
    "--trainer.max_epochs=4",
    "--model.lr_scheduler=torch.optim.lr_scheduler.StepLR",
    "--model.lr_scheduler.step_size=5",
)


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """Data, and the trace of a run of 24 steps over 4 epochs that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    train = write_pairs(folder / "pairs.jsonl")
    main(arguments(tiny, train, folder / "run", *EPOCHS))
    losses = trace(folder / "run")
    assert list(losses) == list(range(24))  # 22 rows in steps of 4: 6 a epoch, the last one short
    assert len(set(losses.values())) == 24
    return train, losses


def test_a_killed_run_resumes_bit_for_bit(whole, tiny, tmp_path):
    train, losses = whole
    slow = ("--trainer.callbacks+=tests.stages.callbacks.Slow", "--trainer.callbacks.seconds=0.1")
    process = start(arguments(tiny, train, tmp_path / "run", *EPOCHS, "--save_every=3", *slow))
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    wait_for(last.exists, process)
    time.sleep(
        (time.time_ns() % 1000) / 1000
    )  # anywhere in the steps that follow, or in the next save
    process.kill()
    output = process.communicate(timeout=60)[0]
    assert process.returncode == -signal.SIGKILL, output
    assert torch.load(last, weights_only=True)["global_step"] < 24
    assert resume(tiny, train, tmp_path, last) == losses


@pytest.mark.parametrize(
    ("step", "by"),
    [(1, "SIGTERM"), (6, "SIGTERM"), ("any", "SIGTERM"), (3, "SIGINT")],  # 6: the last of an epoch
)
def test_a_run_told_to_stop_saves_and_resumes_bit_for_bit(step, by, whole, tiny, tmp_path):
    train, losses = whole
    step = 7 + time.time_ns() % 17 if step == "any" else step
    stop = (
        "--trainer.callbacks+=tests.stages.callbacks.Terminate",
        f"--trainer.callbacks.after={step}",
    )
    stop += (f"--trainer.callbacks.by={by}",)
    with pytest.raises(SystemExit) as exit:
        main(arguments(tiny, train, tmp_path / "run", *EPOCHS, *stop))
    assert exit.value.code == 143
    assert len(trace(tmp_path / "run")) == step
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    assert resume(tiny, train, tmp_path, last) == losses


@pytest.mark.parametrize(
    ("stop", "on"),
    [
        (["--trainer.max_steps=3"], []),
        (
            ["--trainer.max_steps=9"],
            ["--trainer.max_steps=12"],
        ),  # inside an epoch, then to the end of one
        (["--trainer.max_steps=12"], ["--trainer.max_steps=15"]),
        (["--trainer.callbacks+=tests.stages.callbacks.Enough", "--trainer.callbacks.after=8"], []),
    ],
)
def test_a_run_that_ended_early_continues_bit_for_bit(stop, on, whole, tiny, tmp_path):
    train, losses = whole
    main(arguments(tiny, train, tmp_path / "run", *EPOCHS, *stop))
    ended = trace(tmp_path / "run")
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    resumed = resume(tiny, train, tmp_path, last, *on)
    until = int(on[0].partition("=")[2]) if on else 24
    assert resumed == {step: loss for step, loss in losses.items() if step < until}
    assert len(ended) < until


@pytest.mark.parametrize("kind", ["class", "partial", "lambda"])
def test_a_run_made_in_python_loads(kind, tiny, tmp_path):
    optimizer = {
        "class": torch.optim.SGD,
        "partial": partial(torch.optim.AdamW, lr=0.01, betas=(0.8, 0.9)),
        "lambda": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    }[kind]
    objective = Mix([DPO(0.3), CrossEntropy()], [1.0, 0.5])
    module = Preference(
        objective, 0.1, base=Base(str(tiny), "none", "float32"), lora=Lora(r=2), optimizer=optimizer
    )
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
    }
    running = Trainer(
        max_steps=2,
        default_root_dir=tmp_path,
        plugins=[SafeIO()],
        callbacks=[LastCheckpoint()],
        **quiet,
    )
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    running.fit(module, Comparisons(str(pairs), batch_size=4, token_budget=256, max_length=256))
    again = lit_align.load(tmp_path / "checkpoints" / "last.ckpt")
    assert (again.objective, again.label_noise, again.lora) == (objective, 0.1, Lora(r=2))
    assert type(again) is Preference
    for name, weight in again.adapters.trainable().items():
        assert torch.equal(weight, module.adapters.trainable()[name])
    (group,) = again.configure_optimizers().param_groups
    assert kind != "partial" or (group["lr"], group["betas"]) == (0.01, (0.8, 0.9))
    assert kind != "class" or "betas" not in group


def resume(tiny, train, folder, checkpoint, *more):
    """Trace of the run that continues from a checkpoint, in a folder of its own."""
    main(arguments(tiny, train, folder / "run", *EPOCHS, f"--ckpt_path={checkpoint}", *more))
    assert folder_of(folder / "run").name == "1"
    return trace(folder / "run")
