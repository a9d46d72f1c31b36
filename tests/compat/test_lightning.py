"""What `lit_align.compat.lightning` assumes of Lightning: private attributes exist, and behave so."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from lit_align.compat.lightning import is_logging_step

BATCHES = 4


class Learner(LightningModule):
    """Notes its batches, and which steps are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.steps, self.logged = [], []

    def training_step(self, batch, batch_idx):
        self.steps.append(int(batch))
        assert is_logging_step(self.trainer) == self.trainer._logger_connector.should_update_logs
        if is_logging_step(self.trainer):
            self.logged.append(self.global_step)
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class StatefulLoader(DataLoader):
    """Resumes inside an epoch, as the loader of lit_align does."""

    position = 0

    def __iter__(self):
        start, self.position = self.position, 0
        return iter([torch.tensor([float(k)]) for k in range(start, BATCHES)])

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def fit(module, folder, ckpt_path=None, callbacks=(), position=0, **options):
    settings = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    trainer = Trainer(**settings | options, callbacks=list(callbacks))
    loader = StatefulLoader(range(BATCHES))
    loader.position = position
    validation = DataLoader([0.0]) if "val_check_interval" in options else None
    trainer.fit(module, loader, validation, ckpt_path=ckpt_path)
    return trainer


def test_every_third_step_is_logged_and_a_resumed_run_counts_on(tmp_path):
    whole, first, second = Learner(), Learner(), Learner()
    fit(whole, tmp_path, max_epochs=2, log_every_n_steps=3)
    assert whole.logged == [2, 5]
    fit(first, tmp_path, max_epochs=1, log_every_n_steps=3).save_checkpoint(tmp_path / "one.ckpt")
    fit(second, tmp_path, tmp_path / "one.ckpt", max_epochs=2, log_every_n_steps=3)
    assert first.logged + second.logged == whole.logged


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_validation_end"])
def test_a_run_that_resumes_inside_an_epoch_logs_the_same_steps(hook, tmp_path):
    options = {"max_epochs": 1, "log_every_n_steps": 3, "val_check_interval": 2}

    def save(trainer, *args):
        trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    saving = Callback()
    setattr(saving, hook, save)
    whole, resumed = Learner(), Learner()
    fit(whole, tmp_path, callbacks=[saving], **options)
    fit(resumed, tmp_path, tmp_path / "2.ckpt", position=2, **options)
    assert whole.logged == resumed.logged == [2]


@pytest.mark.parametrize(("every", "logged"), [(3, [0]), (0, [])])
def test_a_step_is_logged_where_the_trainer_is_to_stop_unless_none_is(every, logged, tmp_path):
    class Stop(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            trainer.should_stop = True

    module = Learner()
    fit(module, tmp_path, callbacks=[Stop()], max_epochs=1, log_every_n_steps=every)
    assert module.logged == logged
