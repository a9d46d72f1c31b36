"""The learning rate of real runs: each step's against the schedules of transformers, in every stage, also resumed."""

import csv
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as lightning
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    get_cosine_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
    get_wsd_schedule,
)

from lit_align.advantages.gae import GAE
from lit_align.cli.main import main
from lit_align.data.datamodules import Prompts
from lit_align.errors import ConfigError
from lit_align.rewards.pattern import Pattern
from lit_align.rl.critic import Critic
from lit_align.stages.schedule import Schedule, number_of_steps
from tests.rl.on_policy import stage, write_prompts
from tests.stages.runs import arguments, folder_of, trace, write_pairs

LR = 0.003  # of `arguments`
COSINE = "--model.schedule={shape: cosine, warmup: 0.25, floor: 0.1}"
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """22 pairs: 6 steps of 4."""
    return write_pairs(tmp_path_factory.mktemp("schedule") / "pairs.jsonl")


def logged(run, name="lr"):
    """A metric of each step."""
    with (folder_of(run) / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def peer_rates(make_schedule, num_steps, lr=LR):
    """What transformers gives the steps of a run."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = make_schedule(optimizer)
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def cosine(num_warmup, num_steps):
    return lambda optimizer: get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, num_warmup, num_steps, min_lr_rate=0.1
    )


@pytest.mark.parametrize(
    ("limits", "num_steps"),
    [
        ((), 6),
        (("--trainer.max_epochs=2",), 12),
        (("--trainer.max_steps=4",), 4),
        (("--trainer.max_epochs=2", "--trainer.limit_train_batches=0.5"), 6),
        (("--trainer.max_epochs=2", "--trainer.limit_train_batches=4"), 8),
    ],
)
def test_a_run_has_the_rates_of_transformers(limits, num_steps, tiny, pairs, tmp_path):
    main(arguments(tiny, pairs, tmp_path / "run", COSINE, *limits))
    expected = peer_rates(cosine(-(-num_steps // 4), num_steps), num_steps)
    assert logged(tmp_path / "run") == pytest.approx(expected, rel=1e-12)
    assert all(0.1 < gib < 100 for gib in logged(tmp_path / "run", "memory_gib"))


def test_a_number_of_warmup_steps_and_a_final_decay(tiny, pairs, tmp_path):
    setting = "--model.schedule={shape: wsd, warmup: 2, decay: 0.5, floor: 0.2}"
    main(arguments(tiny, pairs, tmp_path / "run", setting))
    expected = peer_rates(
        lambda o: get_wsd_schedule(o, 2, 3, num_training_steps=6, min_lr_ratio=0.2), 6
    )
    assert logged(tmp_path / "run") == pytest.approx(expected, rel=1e-12)


def test_a_constant_schedule_learns_what_none_does(tiny, pairs, tmp_path):
    main(arguments(tiny, pairs, tmp_path / "none"))
    main(arguments(tiny, pairs, tmp_path / "constant", "--model.schedule.shape=constant"))
    assert trace(tmp_path / "constant") == trace(tmp_path / "none")
    assert logged(tmp_path / "none") == [LR] * 6


def test_the_rate_is_that_of_the_update(tiny, pairs, tmp_path):
    """The same run with torch's LinearLR, whose rates differ by rounding alone, and LambdaLR's of transformers."""
    torch_linear = (
        "--model.lr_scheduler=LinearLR",
        *("--model.lr_scheduler.start_factor=1.0", "--model.lr_scheduler.end_factor=0.5"),
        "--model.lr_scheduler.total_iters=6",
    )
    main(arguments(tiny, pairs, tmp_path / "torch", *torch_linear))
    main(arguments(tiny, pairs, tmp_path / "ours", "--model.schedule={shape: linear, floor: 0.5}"))
    assert logged(tmp_path / "ours") == pytest.approx(logged(tmp_path / "torch"), rel=1e-12)
    losses = [[*map(float, trace(tmp_path / name).values())] for name in ("ours", "torch")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] == losses[1][0]


def test_a_longer_run_goes_on_along_its_own_schedule(tiny, pairs, tmp_path, caplog):
    run = arguments(tiny, pairs, tmp_path / "run", COSINE)
    main(run)
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    main([*run, "--trainer.max_epochs=2", f"--ckpt_path={last}"])
    assert "resumed with other settings:\n  schedule steps 6 -> 12" in caplog.text
    rates = logged(tmp_path / "run")
    assert rates[:6] == pytest.approx(peer_rates(cosine(2, 6), 6), rel=1e-12)
    assert rates[6:] == pytest.approx(peer_rates(cosine(3, 12), 12)[6:], rel=1e-12)
    assert rates[6:] == sorted(rates[6:], reverse=True)


@pytest.mark.parametrize(
    ("saved", "current"),
    [
        (COSINE, "--model.schedule.shape=linear"),
        ("--model.schedule=null", COSINE),
        (COSINE, "--model.schedule=null"),
        (COSINE, "--model.optimizer.lr=0.001"),
    ],
)
def test_another_schedule_or_rate_holds_from_the_checkpoint_on(
    saved, current, tiny, pairs, tmp_path
):
    """A resumed run has the rates that its own settings give at each step, whatever those before were."""
    stop = ("--trainer.callbacks+=tests.stages.callbacks.Enough", "--trainer.callbacks.after=3")
    main(arguments(tiny, pairs, tmp_path / "run", saved, *stop))
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    current_settings = [saved, current] if "optimizer" in current else [current]
    main(arguments(tiny, pairs, tmp_path / "run", *current_settings, f"--ckpt_path={last}"))
    main(arguments(tiny, pairs, tmp_path / "whole", *current_settings))
    assert logged(tmp_path / "run")[3:] == logged(tmp_path / "whole")[3:]


def test_a_stopped_run_goes_on_bit_for_bit(tiny, pairs, tmp_path):
    run = [COSINE, "--trainer.max_epochs=2"]
    main(arguments(tiny, pairs, tmp_path / "whole", *run))
    stop = ("--trainer.callbacks+=tests.stages.callbacks.Terminate", "--trainer.callbacks.after=7")
    with pytest.raises(SystemExit):
        main(arguments(tiny, pairs, tmp_path / "run", *run, *stop))
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    main(arguments(tiny, pairs, tmp_path / "run", *run, f"--ckpt_path={last}"))
    assert trace(tmp_path / "run") == trace(tmp_path / "whole")
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")


def test_policy_and_critic_fall_from_rates_of_their_own(tiny, tmp_path):
    """An iteration is a step, however many updates it makes, and all of these have one rate."""
    module = stage(
        tiny, Pattern("a"), GAE(), critic=Critic(lr=1e-2), num_iterations=2, num_minibatches=2, max_new_tokens=4,
        optimizer=partial(torch.optim.AdamW, lr=1e-3), schedule=Schedule("cosine", warmup=1),
    )  # fmt: skip
    write_prompts(tmp_path / "prompts.jsonl")
    rates = []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    trainer = lightning.Trainer(
        max_steps=4, default_root_dir=tmp_path, callbacks=[Watch()], **QUIET
    )
    trainer.fit(module, Prompts(str(tmp_path / "prompts.jsonl"), batch_size=2))
    policy, critic = zip(*rates, strict=True)
    for group, lr in ((policy, 1e-3), (critic, 1e-2)):
        expected = peer_rates(lambda o: get_cosine_schedule_with_warmup(o, 1, 4), 4, lr)
        assert group == pytest.approx(expected, rel=1e-12)
    metrics = trainer.callback_metrics
    assert (float(metrics["lr"]), float(metrics["lr/critic"])) == (policy[-1], critic[-1])


def test_rounds_are_epochs_of_one_schedule(tiny, pairs, tmp_path):
    """Also where prompts without a label leave steps empty: the schedule ends with the last round."""
    rounds = (
        *("--data=Online", f"--data.train={pairs}", "--data.rounds=2", "--data.round_size=8"),
        *("--data.feedback=FromReward", "--data.feedback.reward=Length"),
        *("--data.feedback.reward.max_words=1", "--data.batch_size=4", "--data.token_budget=256"),
        *("--data.max_length=256", "--model.max_new_tokens=4"),
    )
    run = [
        word for word in arguments(tiny, pairs, tmp_path / "run", COSINE) if "--data" not in word
    ]
    main([*run, *rounds])
    first_steps = logged(tmp_path / "run")[
        ::2
    ]  # one pair of 8 prompts has a label: one step of two
    assert first_steps == pytest.approx(peer_rates(cosine(1, 4), 4)[::2], rel=1e-12)


def test_a_scheduler_that_waits_for_a_metric_follows_the_validations(tiny, pairs, tmp_path):
    """The validation loss falls, so a scheduler that wants it to rise divides the rate after the second one."""
    plateau = (
        "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
        *("--model.lr_scheduler.monitor=eval_loss", "--model.lr_scheduler.mode=max"),
        "--model.lr_scheduler.patience=0",
    )
    main(
        arguments(
            tiny,
            pairs,
            tmp_path / "run",
            *plateau,
            f"--data.validation={pairs}",
            "--trainer.max_epochs=3",
        )
    )
    assert logged(tmp_path / "run") == pytest.approx([LR] * 12 + [LR / 10] * 6, rel=1e-12)


# ------------------------------------------------------------------ settings


PLATEAU = "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau"


ONE_CYCLE = "--model.lr_scheduler={class_path: OneCycleLR, init_args: {max_lr: 1, total_steps: %s}}"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--model.schedule={shape: cosine, warmup: 100}"], "schedule.warmup is 100 steps, and the run has 6; "),
        (["--model.schedule={shape: wsd, warmup: 3, decay: 4}"], "schedule.warmup is 3 and schedule.decay 4 steps, "),
        (["--model.schedule.shape=cosine", "--trainer.max_epochs=-1"], "model.schedule is over the steps of the run"),
        (
            [COSINE, "--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=2"],
            "model.lr_scheduler and model.schedule are both set, and each changes the learning rate; set one of them",
        ),
        ([PLATEAU, "--model.lr_scheduler.monitor=val_loss"], "model.lr_scheduler waits for the metric 'val_loss', "),
        ([PLATEAU, "--model.lr_scheduler.monitor=eval_loss"], "model.lr_scheduler waits for eval_loss, and the run "),
        ([ONE_CYCLE % 4], "model.lr_scheduler OneCycleLR fails after 4 of 6 updates: "),
        ([ONE_CYCLE % "10, pct_start: 0.1"], "model.lr_scheduler OneCycleLR(max_lr=1.0, total_steps=10, "),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_weights_load(
    more, sentence, tiny, pairs, tmp_path, capsys, monkeypatch
):
    def fail(*_):
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr("lit_align.stages.language_model_stage.load_model", fail)
    with pytest.raises(SystemExit, match="2"):
        main(arguments(tiny, pairs, tmp_path / "run", *more))
    assert f"lit-align: {sentence}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"warmup": -1}, "schedule.warmup must be at least 0, got -1"),
        ({"warmup": 1.5}, "schedule.warmup is 1.5; it is a number of steps, such as 100, or a share"),
        ({"warmup": float("inf")}, "schedule.warmup is inf; it is a number"),
        ({"warmup": float("nan")}, "schedule.warmup must be at least 0, got nan"),
        ({"shape": "cosine", "floor": 1.1}, "schedule.floor must be between 0 and 1"),
        ({"shape": "cosine", "decay": 0.1}, "schedule.decay is 0.1, and only the shape wsd has one"),
        ({"floor": 0.1}, "schedule.floor is 0.1, and the shape constant does not fall"),
    ],
)  # fmt: skip
def test_a_setting_without_a_meaning_is_refused(settings, match):
    with pytest.raises(ConfigError, match=match):
        Schedule(**settings)


shares = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10_000), shares, shares)
def test_shares_fit_into_any_run(num_steps, warmup, decay):
    """Rounding up never makes a run too short for them."""
    decay = min(decay, 1 - warmup)
    num_warmup, num_decay = Schedule("wsd", warmup=warmup, decay=decay).phases(num_steps)
    assert 0 <= num_warmup - warmup * num_steps < 1 + 1e-6
    assert -1 - 1e-6 < num_decay - decay * num_steps < 1 + 1e-6
    assert num_warmup + num_decay <= num_steps


@pytest.mark.parametrize(
    ("max_steps", "max_epochs", "length", "num_steps"),
    [
        (-1, 3, 5, 15),
        (7, 3, 5, 7),
        (70, 3, 5, 15),
        (7, -1, 5, 7),
        (7, None, float("inf"), 7),
        (7, 2, float("inf"), 7),
        (-1, 2, float("inf"), None),
        (-1, -1, 5, None),
    ],
)
def test_steps_of_a_run(max_steps, max_epochs, length, num_steps):
    trainer = SimpleNamespace(max_steps=max_steps, max_epochs=max_epochs)
    assert number_of_steps(trainer, length) == num_steps
