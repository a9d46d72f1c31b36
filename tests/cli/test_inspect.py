"""``lit-align inspect`` says what a run will need, on a machine that has none of it."""

import json

import pytest

from lit_align.cli.main import main
from lit_align.models.inventory import Inventory
from lit_align.models.lora import Lora


@pytest.fixture
def rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    row = {"prompt": "What do bees make? ", "chosen": "Honey.", "rejected": "Milk, mostly."}
    file.write_text("".join(json.dumps(row) + "\n" for _ in range(8)))
    return str(file)


def inspected(capsys, *args):
    main(["inspect", *args])
    return " ".join(capsys.readouterr().out.split())


def test_a_run_for_a_gpu_is_looked_at_without_one(tiny, rows, capsys):
    words = ["--model", "Preference", "--model.objective", "DPO", "--model.base.path", str(tiny)]
    words += [
        "--data",
        "Comparisons",
        "--data.train",
        rows,
        "--trainer.accelerator",
        "gpu",
        "--trainer.devices",
        "1",
    ]
    said = inspected(capsys, *words)
    for phase in ("load", "score", "update"):
        assert f"│ {phase}" in said
    assert "prefill" not in said
    assert "on a card of 24 GiB. model.gradient_checkpointing could be false: " in said
    assert "It does not fit: " in inspected(capsys, *words, "--card", "1.5")


def test_rl_shows_sampling_and_the_reward(tiny, rows, capsys):
    words = [
        "--model",
        "RL",
        "--model.objective",
        "PPO",
        "--model.advantage",
        "GAE",
        "--model.reward",
        "Length",
    ]
    words += [
        "--model.reward.max_words",
        "8",
        "--model.base.path",
        str(tiny),
        "--data",
        "Prompts",
        "--data.train",
        rows,
    ]
    said = inspected(capsys, *words)
    for phase in ("load", "prefill", "decode", "score", "update"):
        assert f"│ {phase}" in said
    assert "What Length loads for itself, if anything, is not counted." in said


def test_the_time_of_a_step_is_predicted_from_measured_parts(tiny, rows, capsys, monkeypatch):
    """The inventory, which memory and time are both predicted from, is made once."""
    made, make = [], Inventory.from_config

    def note(config, lora, **settings):
        made.append(lora)
        return make(config, lora, **settings)

    monkeypatch.setattr(Inventory, "from_config", note)
    words = ["--model", "Preference", "--model.objective", "DPO", "--model.base.path", str(tiny)]
    words += ["--data", "Comparisons", "--data.train", rows, "--trainer.strategy", "sharded_base"]
    printed = inspected(capsys, *words, "--cards", "2")
    assert "Seconds of a step, from parts measured on" in printed
    for phase in ("score", "update", "exchange", "step"):
        assert f"│ {phase}" in printed
    assert "On 2 cards a step takes" in printed
    assert made.count(Lora()) == 1  # the plan's adapters, whatever dtype another one might be in
    assert "Seconds of a step" not in inspected(capsys, *words, "--trainer.devices", "2")
