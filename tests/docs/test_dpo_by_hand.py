"""The text to learn from computes what ``lit-align fit`` computes."""

import csv
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from lit_align.cli.main import main
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from tests.stages.runs import write_pairs

FILE = Path(__file__).parents[2] / "lit_align/docs/dpo_by_hand.py"


@pytest.fixture(scope="module")
def dpo_by_hand():
    specification = spec_from_file_location("dpo_by_hand", FILE)
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_it_is_short():
    assert len(FILE.read_text().splitlines()) <= 150


def test_its_losses_are_those_of_a_run(dpo_by_hand, tiny, tmp_path, monkeypatch):
    """Steps of all pairs, so that their order has no say; from the same adapter, three steps of AdamW."""
    monkeypatch.setattr(dpo_by_hand, "BATCH_SIZE", 22)
    monkeypatch.setattr(dpo_by_hand, "TOKEN_BUDGET", 512)  # several micro-batches
    pairs = write_pairs(tmp_path / "pairs.jsonl", rows=22)
    base = Base(str(tiny), quantization="none", dtype="float32")
    losses = dpo_by_hand.train(base, Lora(r=4), [str(pairs)], tmp_path / "adapter", epochs=3)
    settings = {
        "model": "Preference",
        "model.objective": "DPO",
        "model.base.path": tiny,
        "model.base.quantization": "none",
        "model.base.dtype": "float32",
        "model.lora.r": 4,
        "model.optimizer": "torch.optim.AdamW",
        "model.optimizer.lr": dpo_by_hand.LEARNING_RATE,
        "model.optimizer.weight_decay": 0.0,
        "data": "Comparisons",
        "data.train": pairs,
        "data.batch_size": 22,
        "data.max_length": 512,
        "trainer.max_epochs": 3,
        "trainer.accelerator": "cpu",
        "trainer.log_every_n_steps": 1,
        "run": tmp_path / "run",
    }
    main(["fit", *(f"--{name}={value}" for name, value in settings.items())])
    with (tmp_path / "run/0/metrics.csv").open() as file:
        logged = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[0] == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-6)
    assert losses[-1] < losses[0]
    assert losses == pytest.approx(logged, abs=2e-5)
