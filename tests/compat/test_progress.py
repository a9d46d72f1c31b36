"""What `lit_align.compat.progress` assumes of Lightning: a run goes on wherever its position says that it is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from lit_align.compat.progress import (
    Position,
    begin_epoch,
    current_position,
    loop_counters,
    number_logged_step,
    position_after,
    save_position,
    use_resumable_loop,
)

LENGTH = 3  # batches in an epoch
HOOKS = [
    "on_train_batch_start",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
    "on_train_end",
]
CALLS_UNTIL_NEXT = {
    "on_train_batch_start": 2,
    "on_validation_start": 2,
    "on_validation_batch_end": 3,
    "on_train_end": 2,
}
"""Calls of a hook in a resumed run until the first that was not repeated: a validation of 2 batches starts over."""
LIMITS = [{"max_epochs": 3}, {"max_steps": 9}]
VALIDATIONS = [{}, {"val_check_interval": 2}, {"limit_val_batches": 0}]


class Batches:
    """A loader that starts where the position says."""

    def __init__(self) -> None:
        self.epoch = self.next = 0

    @property
    def sampler(self):
        return self

    def set_epoch(self, epoch):
        if epoch != self.epoch:
            self.epoch, self.next = epoch, 0

    def __len__(self):
        return LENGTH

    def __iter__(self):
        for k in range(self.next, LENGTH):
            yield torch.tensor([float(10 * self.epoch + k)])

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Learner(LightningModule):
    """Writes down what happens to it, under the numbers that loggers get."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.automatic_optimization = False
        self.events = []
        self.position = None

    def setup(self, stage):
        use_resumable_loop(self.trainer)

    def on_train_start(self):
        if self.position is None:
            return
        loader = self.trainer.train_dataloader
        loader.epoch, loader.next = self.position.epochs, self.position.batches
        if self.position.batches == 0:
            begin_epoch(self.trainer)

    def on_train_batch_start(self, batch, batch_idx):
        number_logged_step(self.trainer)

    def training_step(self, batch, batch_idx):
        epoch_loop = self.trainer.fit_loop.epoch_loop
        names = ("train", int(batch), batch_idx, self.trainer.current_epoch, self.global_step)
        self.events.append((*names, epoch_loop._batches_that_stepped))
        self.optimizers().step()

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        epoch_loop = self.trainer.fit_loop.epoch_loop
        numbers = (self.trainer.current_epoch, epoch_loop._batches_that_stepped)
        self.events.append(("validation", *numbers))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def on_save_checkpoint(self, checkpoint):
        save_position(checkpoint, self.trainer)
        checkpoint["number of events"] = len(self.events)

    def on_load_checkpoint(self, checkpoint):
        self.position = Position(**checkpoint["position"])
        self.events = self.events[: checkpoint["number of events"]]


class Stop(Exception):
    """Ends a run as a kill does."""


class SaveAndStop(Callback):
    """Save at the n-th call of a hook, and stop the run there."""

    def __init__(self, hook, number, path) -> None:
        self.hook, self.number, self.path = hook, number, path
        setattr(self, hook, self._call)

    def _call(self, trainer, *args):
        self.number -= 1
        if self.number == 0:
            trainer.save_checkpoint(self.path)
            raise Stop


def fit(folder, options, events=(), ckpt_path=None, callbacks=()):
    module = Learner()
    module.events = list(events)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **options,
    )
    try:
        validation = DataLoader(torch.zeros(2))
        trainer.fit(module, Batches(), validation, ckpt_path=ckpt_path, weights_only=True)
    except Stop:
        return module, True
    return module, False


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("validation", VALIDATIONS, ids=str)
@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_a_run_that_stops_at_every_call_of_a_hook_does_what_one_run_does(
    limit, validation, hook, tmp_path
):
    options = {**limit, **validation}
    undisturbed, _ = fit(tmp_path, options)
    assert len([event for event in undisturbed.events if event[0] == "train"]) == 9
    path = tmp_path / "saved.ckpt"
    module, is_stopped, number = *fit(tmp_path, options, callbacks=[SaveAndStop(hook, 1, path)]), 1
    while is_stopped:
        number += 1
        assert number < 40
        stop = SaveAndStop(hook, CALLS_UNTIL_NEXT.get(hook, 1), path)
        module, is_stopped = fit(tmp_path, options, module.events, path, [stop])
    assert module.events == undisturbed.events


@given(st.integers(0, 50), st.integers(1, 9), st.booleans())
def test_positions_count_all_batches(total, length, validation_due):
    validation_due = validation_due and total > 0
    position = position_after(total, length, validation_due)
    assert position.total_batches == total
    assert 0 <= position.batches < length or (position.batches == length and validation_due)


@given(st.integers(0, 50), st.integers(1, 9), st.booleans(), st.integers(0, 50))
def test_counters_agree_with_one_another(total, length, validation_due, global_step):
    position = position_after(total, length, validation_due and total > 0)
    counters = loop_counters(position, global_step)
    epochs = counters["epoch_progress"]["total"]
    batches = counters["epoch_loop.batch_progress"]
    assert epochs["processed"] == epochs["completed"] == position.epochs
    assert epochs["started"] - epochs["processed"] == (position.batches > 0)
    assert batches["total"]["processed"] == total
    assert batches["current"]["processed"] == position.batches
    assert batches["is_last_batch"] == (position.batches == length)


def test_a_loader_without_a_length_has_no_position():
    assert current_position(Trainer(logger=False, enable_checkpointing=False)) is None
