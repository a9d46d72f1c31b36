"""What the command line relies on in Lightning, public or not; each test fails when Lightning changes it."""

import importlib
import inspect
import os
import re
import warnings
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from lit_align.cli.main import EXPECTED_WARNINGS
from lit_align.compat.lightning import StepsProgressBar, set_root_dir


@pytest.mark.parametrize(
    ("max_epochs", "descriptions"),
    [
        (-1, ["Epoch 3/-2", "Epoch 4"]),
        (None, ["Epoch 3", "Epoch 4"]),
        (4, ["Epoch 3/3", "Epoch 4/4"]),
    ],
)
def test_lightnings_bar_counts_epochs_from_zero_and_ours_from_one(max_epochs, descriptions):
    shown = []
    for bar_class in (RichProgressBar, StepsProgressBar):
        bar = bar_class()
        bar._trainer = SimpleNamespace(max_epochs=max_epochs)
        shown.append(bar._get_train_description(3).strip())
    assert shown == descriptions


def test_the_root_folder_of_a_trainer_can_be_changed(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path / "a", logger=False, accelerator="cpu")
    set_root_dir(trainer, str(tmp_path / "b"))
    assert trainer.default_root_dir == str(tmp_path / "b")
    with pytest.raises(AttributeError):  # then the public way would do
        trainer.default_root_dir = "c"


class Recording(LightningCLI):
    """Overrides what ours does: ``parse_arguments``, the hooks and the subcommand."""

    def parse_arguments(self, parser, args):
        super().parse_arguments(parser, args)
        self.calls = ["parsed"]

    def before_instantiate_classes(self):
        self.calls.append("before classes")

    def before_fit(self):
        self.calls.append("before")

    def fit(self, **options):
        self.calls.append(sorted(options))

    def after_fit(self):
        self.calls.append("after")


def test_a_method_named_as_a_subcommand_runs_it_and_no_seed_is_set(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    arguments = ["fit", "--trainer.logger=false", "--trainer.accelerator=cpu"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cli = Recording(
            BoringModel,
            BoringDataModule,
            seed_everything_default=False,
            save_config_callback=None,
            args=arguments,
        )
    options = ["ckpt_path", "datamodule", "model", "weights_only"]
    assert cli.calls == ["parsed", "before classes", "before", options, "after"]
    assert cli.config.fit.seed_everything is False
    assert "PL_GLOBAL_SEED" not in os.environ


@pytest.mark.parametrize(("message", "category", "module"), EXPECTED_WARNINGS)
def test_a_hidden_warning_is_narrow(message, category, module):
    """By a category more special than Warning, and by the one module that raises it, which exists and has the text."""
    assert category is not Warning
    name = module.replace("\\", "")
    source = inspect.getsource(importlib.import_module(name))
    words = re.sub(r"[\\`.*]|\((?:s)\)", " ", message.replace("`list`", "")).split()
    for word in (word for word in words if word.isalpha()):
        assert word in source, (word, name)
