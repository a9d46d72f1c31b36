"""What a run does with input it cannot use: before any weights load where that is possible, and never in silence."""

import csv
import datetime
import json
import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from safetensors.torch import load_file

from lit_align.cli.main import main
from lit_align.errors import ConfigError
from lit_align.stages.answering import prediction_record
from lit_align.stages.exact_step import require_whole_copies
from lit_align.stages.sft import SFT
from lit_align.types import Group
from tests import tiny as make
from tests.stages.runs import arguments, folder_of, trace, without_report, write_chats, write_pairs


class Poison(Callback):
    """Make the adapter's output not finite in chosen steps."""

    def __init__(self, steps: list[int]) -> None:
        self.steps, self.seen = steps, -1

    def on_train_batch_start(self, trainer, pl_module, *args) -> None:
        self.seen += 1
        self.kept = [p.detach().clone() for p in pl_module.adapters.trainable().values()]
        if self.seen in self.steps:
            next(iter(pl_module.adapters.trainable().values())).data.fill_(float("nan"))

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        if self.seen in self.steps:
            for parameter, before in zip(
                pl_module.adapters.trainable().values(), self.kept, strict=True
            ):
                parameter.data.copy_(before)


def poisoned(*steps: int) -> tuple[str, str]:
    return f"--trainer.callbacks+={__name__}.Poison", f"--trainer.callbacks.steps={list(steps)}"


def refused(capsys, *args) -> str:
    with pytest.raises(SystemExit) as exit:
        main(arguments(*args))
    assert exit.value.code in (1, 2)
    return capsys.readouterr().err


def test_a_step_that_is_not_finite_is_skipped_and_counted(tiny, tmp_path):
    train = write_pairs(tmp_path / "pairs.jsonl")
    main(arguments(tiny, train, tmp_path / "run", "--trainer.max_epochs=1", *poisoned(1, 3)))
    summary = json.loads((tmp_path / "run" / "0" / "summary.json").read_text())
    assert summary["skipped_steps"] == 2
    assert summary["steps"] == 4  # six batches, two of them not taken
    weights = load_file(tmp_path / "run" / "0" / "adapter" / "adapter_model.safetensors")
    assert all(w.isfinite().all() for w in weights.values())


def test_too_many_in_a_row_stop_the_run_with_its_state_saved(tiny, tmp_path, capsys):
    train = write_pairs(tmp_path / "pairs.jsonl")
    message = refused(
        capsys, tiny, train, tmp_path / "run", "--trainer.max_epochs=2", *poisoned(2, 3, 4)
    )
    assert "3 steps in a row" in message
    saved = tmp_path / "run" / "0" / "checkpoints" / "stopped.ckpt"
    assert str(saved) in message
    assert torch.load(saved, weights_only=True)["global_step"] == 2


class Spoil(Callback):
    """Make the adapter's output not finite in the first validation batch."""

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, *args) -> None:
        parameter = next(iter(pl_module.adapters.trainable().values()))
        if batch_idx == 0:
            self.kept = parameter.detach().clone()
        parameter.data.copy_(self.kept if batch_idx else torch.full_like(self.kept, float("nan")))


def test_validation_that_is_not_finite_shows(tiny, tmp_path):
    train = write_pairs(tmp_path / "pairs.jsonl")
    same = ("--model.lora.dropout=0.0", f"--data.validation={train}")
    run = arguments(tiny, train, tmp_path / "run", "--trainer.max_epochs=1", *same)

    def evaluated() -> dict[str, float]:
        with (folder_of(tmp_path / "run") / "metrics.csv").open() as file:
            (last,) = [row for row in csv.DictReader(file) if row["eval_loss"]]
        return {name: float(value) for name, value in last.items() if name.startswith("eval_")}

    main(run)
    sound = evaluated()
    assert all(map(math.isfinite, sound.values()))
    main([*run, "--data.token_budget=100"])
    assert evaluated() == pytest.approx(
        sound, rel=1e-3
    )  # means over pairs and tokens, not over micro-batches
    main([*run, f"--trainer.callbacks+={__name__}.Spoil"])
    assert math.isnan(evaluated()["eval_loss"])


def test_label_and_objective_that_do_not_fit_are_refused_before_weights_load(
    tiny, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        "lit_align.stages.language_model_stage.load_model", None
    )  # loading would fail otherwise
    pairs, chats = write_pairs(tmp_path / "pairs.jsonl"), write_chats(tmp_path / "chats.jsonl")
    message = refused(
        capsys, tiny, pairs, tmp_path / "run", "--data=Demonstrations", f"--data.train={pairs}"
    )
    assert "DPO learns from pairs" in message
    assert "Demonstrations has demonstrations" in message
    mismatch = arguments(
        tiny, pairs, tmp_path / "run", "--data=Demonstrations", f"--data.train={pairs}"
    )
    with pytest.raises(SystemExit):
        main(["inspect", *mismatch[1:]])
    assert capsys.readouterr().err == message
    message = refused(capsys, tiny, chats, tmp_path / "run")
    assert "Conversations, whose labels are demonstrations, but pairs are needed" in message


def test_a_tree_that_no_micro_batch_can_hold_is_refused_by_inspect_too(tiny, tmp_path, capsys):
    run = arguments(
        tiny, write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", "--data.token_budget=20"
    )
    for args in (run, ["inspect", *run[1:]]):
        with pytest.raises(SystemExit):
            main(args)
        assert (
            "over the token_budget of 20; raise token_budget or lower max_length"
            in capsys.readouterr().err
        )


def test_no_chat_template_names_the_fix(tiny, tmp_path, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in tiny.iterdir():
        if file.name != "chat_template.jinja":
            (bare / file.name).write_bytes(file.read_bytes())
    train = write_pairs(tmp_path / "pairs.jsonl")
    assert "chat_template: chatml" in refused(capsys, bare, train, tmp_path / "run")
    main(
        arguments(
            bare, train, tmp_path / "run", "--trainer.max_steps=1", "--model.chat_template=chatml"
        )
    )
    assert len(trace(tmp_path / "run")) == 1


def test_too_many_malformed_rows_stop_the_run_and_show_the_table(tiny, tmp_path, capsys, caplog):
    train = write_pairs(tmp_path / "pairs.jsonl")
    with train.open("a") as file:
        file.write('{"prompt": "x", "chosen": "same", "rejected": "same"}\nnot json\n')
    with caplog.at_level("INFO"):
        message = refused(capsys, tiny, train, tmp_path / "run")
    assert "max_malformed" in message
    assert "malformed            2    8.33%" in caplog.text  # the table
    book = json.loads((folder_of(tmp_path / "run") / "ledger.json").read_text())["train"]
    assert book["fates"]["malformed"] == 2
    with pytest.raises(SystemExit):
        main(["inspect", *arguments(tiny, train, tmp_path / "run")[1:]])
    assert "malformed            2    8.33%" in capsys.readouterr().out
    main(
        arguments(
            tiny, train, tmp_path / "run", "--data.max_malformed=0.2", "--trainer.max_steps=1"
        )
    )
    book = json.loads((folder_of(tmp_path / "run") / "ledger.json").read_text())["train"]
    assert book["rows"] == 24


def test_a_checkpoint_of_another_adapter_is_refused(tiny, tmp_path, capsys):
    train = write_pairs(tmp_path / "pairs.jsonl")
    main(arguments(tiny, train, tmp_path / "run", "--trainer.max_steps=1"))
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    message = refused(
        capsys,
        tiny,
        train,
        tmp_path / "run",
        "--model.lora.targets=[q_proj]",
        "--trainer.max_steps=2",
        f"--ckpt_path={last}",
    )
    assert "does not fit this adapter" in message


def test_a_checkpoint_of_another_model_is_refused_by_what_differs(tiny, tmp_path, capsys):
    train = write_pairs(tmp_path / "pairs.jsonl")
    main(arguments(tiny, train, tmp_path / "run", "--trainer.max_steps=1"))
    other, template = make.save(tmp_path / "other", seed=1), tmp_path / "template.jinja"
    template.write_text(
        make.CHATML.replace("role'] }}\n", "role'] }}: ").replace("assistant\n", "assistant: ")
    )
    last, adapter = (
        tmp_path / "run" / "0" / "checkpoints" / "last.ckpt",
        tmp_path / "run" / "0" / "adapter",
    )

    def validate(*more) -> list[str]:
        run = arguments(
            tiny,
            train,
            tmp_path / "run",
            f"--data.validation={train}",
            f"--ckpt_path={last}",
            *more,
        )
        return ["validate", *run[1:]]

    for change, sentence in {
        "--model.lora.r=8": "lora.r was 4 and is 8",
        "--model.lora.alpha=999": "lora.alpha was 32 and is 999",
        f"--model.base.path={other}": f"base.path was '{tiny}' and is '{other}'",
        f"--model.init_adapter={adapter}": f"init_adapter was None and is '{adapter}'",
        f"--model.chat_template={template}": "chat_template (hash) was ",
    }.items():
        with pytest.raises(SystemExit):
            main(validate(change))
        message = capsys.readouterr().err
        assert f"the checkpoint does not fit this adapter: {sentence}" in message
        assert "use the settings of the run that wrote it" in message
    main(validate("--model.lora.dropout=0.0"))


def test_a_stranger_cannot_run_code_through_a_checkpoint(tiny, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("owned").touch, ())

    train = write_pairs(tmp_path / "pairs.jsonl")
    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(SystemExit):
        main(arguments(tiny, train, tmp_path / "run", f"--ckpt_path={tmp_path / 'evil.ckpt'}"))
    assert "evil.ckpt holds a Python object" in capsys.readouterr().err
    assert not (tmp_path / "owned").exists()


def test_running_out_of_memory_names_what_would_help(tiny, tmp_path, capsys, monkeypatch):
    def no_room(self, batch, statistics):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SFT, "losses", no_room)
    train = write_chats(tmp_path / "chats.jsonl")
    with pytest.raises(SystemExit):
        main(arguments(tiny, train, tmp_path / "run", stage="SFT"))
    message = capsys.readouterr().err
    for cure in ("data.token_budget", "base.quantization: nf4", "lora.r", "GiB"):
        assert cure in message


def test_predict_writes_an_answer_to_each_prompt(tiny, tmp_path):
    train = write_pairs(tmp_path / "pairs.jsonl")
    run = arguments(
        tiny, train, tmp_path / "run", f"--data.validation={train}", "--model.max_new_tokens=4"
    )
    main([*run, "--trainer.max_steps=1"])
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    main(["predict", "-c", str(tmp_path / "run" / "0" / "config.yaml"), f"--ckpt_path={last}"])
    rows = [
        json.loads(line)
        for line in (tmp_path / "run" / "1" / "answers.jsonl").read_text().splitlines()
    ]
    assert [row["source"] for row in rows] == [f"{train}:{k + 1}" for k in range(22)]
    assert all(isinstance(row["answer"], str) for row in rows)


def test_a_column_of_the_data_is_never_taken_for_the_models_answer():
    theirs = {"answer": "gold", "source": "web", "score": 9, "when": datetime.date(2024, 1, 1)}
    ours = {"source": "rows:1", "prompt": "a?", "answer": "mine"}
    kept = {"data.answer": "gold", "data.source": "web", "when": theirs["when"]}
    group = Group("a?", ["b"], source="rows:1", extra=theirs)
    assert prediction_record(group, {"answer": "mine"}) == {**ours, **kept, "score": 9}
    assert prediction_record(group, {"answer": "mine", "score": 0.5}) == {
        **ours,
        **kept,
        "score": 0.5,
        "data.score": 9,
    }


@pytest.mark.parametrize("strategy", [FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy])
def test_shares_of_the_weights_are_refused_in_python_too(strategy):
    with pytest.raises(ConfigError, match=f"trainer.strategy is {strategy.__name__}, by which no"):
        require_whole_copies(SimpleNamespace(strategy=object.__new__(strategy)))


def test_an_objective_that_needs_whole_steps_runs_on_one_process(tiny, tmp_path, capsys):
    several = ("--trainer.devices=2", "--trainer.strategy=ddp", "--model.objective=KTOPair")
    with pytest.raises(SystemExit, match="2"):
        main(arguments(tiny, write_pairs(tmp_path / "pairs.jsonl"), tmp_path / "run", *several))
    said = capsys.readouterr().err
    assert "KTOPair looks at all items of a step together, and 2 processes would share them" in said


def test_whole_copies_are_not_refused():
    require_whole_copies(Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False))
    require_whole_copies(Trainer(accelerator="cpu", devices=1, logger=False))


def test_the_figures_of_a_logged_step_are_its_own(tiny, tmp_path):
    train = write_pairs(tmp_path / "pairs.jsonl")
    run = arguments(tiny, train, tmp_path / "run", "--trainer.max_epochs=2")

    def entropy() -> dict[str, str]:
        with (folder_of(tmp_path / "run") / "metrics.csv").open() as file:
            return {row["step"]: row["entropy"] for row in csv.DictReader(file)}

    main(run)
    each = entropy()
    main([*run, "--trainer.log_every_n_steps=4"])
    assert entropy() == {step: each[step] for step in ("3", "7", "11")}  # of 12, 6 an epoch


def test_lightnings_own_checkpoints_and_early_stopping_work(tiny, tmp_path):
    train = write_pairs(tmp_path / "pairs.jsonl")
    callbacks = [
        {
            "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
            "init_args": {"monitor": "eval_loss", "filename": "best", "save_top_k": 1},
        },
        {
            "class_path": "lightning.pytorch.callbacks.EarlyStopping",
            "init_args": {"monitor": "eval_rewards/accuracies", "mode": "max", "patience": 1},
        },
    ]
    run = arguments(
        tiny, train, tmp_path / "run", f"--data.validation={train}", "--model.optimizer.lr=0.0"
    )
    run += ["--trainer.max_epochs=9", f"--trainer.callbacks={json.dumps(callbacks)}"]
    main(without_report(run))
    assert len(trace(tmp_path / "run")) == 12  # nothing learned: stopped after the second epoch
    best = folder_of(tmp_path / "run") / "checkpoints" / "best.ckpt"
    assert best.exists()
    assert (best.with_suffix(".adapter") / "adapter_model.safetensors").exists()
    keys = torch.load(best, weights_only=True)["state_dict"]
    assert keys
    assert all("lora_" in key for key in keys)
