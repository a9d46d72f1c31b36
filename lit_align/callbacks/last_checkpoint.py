"""Saves the newest state of a run, also when the run is stopped by Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_align.checkpoint_files import last_checkpoint
from lit_align.compat.stopping import agree_to_stop, stop_together, watch
from lit_align.models.atomic_folder import TEMPORARY, remove_abandoned


class LastCheckpoint(Checkpoint):
    """Save the newest state as ``checkpoints/last.ckpt`` in the run folder, also when the run is stopped.

    A state is saved when its step has been logged: before the validation that follows the step, before the next step,
    or at the end of the epoch, whichever comes first. So no row of ``metrics.csv`` is missing in a resumed run.

    Args:
        every_n_train_steps: steps between two saves.
    """

    def __init__(self, every_n_train_steps: int = 50) -> None:
        self.every_n_train_steps = every_n_train_steps
        self._is_due = False

    def save(self, trainer: Trainer) -> None:
        """Save the current state; every rank must call this."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(last_checkpoint(Path(trainer.default_root_dir)))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what the processes of the run that is resumed left half written."""
        if trainer.ckpt_path and trainer.is_global_zero:
            checkpoints = Path(trainer.ckpt_path).parent
            for folder in (checkpoints, checkpoints.parent):
                remove_abandoned(folder, f"*{TEMPORARY}")
                remove_abandoned(folder, f".*{TEMPORARY}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let Ctrl-C stop the run after the current step, as SIGTERM does; a second one stops it at once.

        Lightning restores the signal's old handler when the run ends.
        """
        watch(trainer)
        stop_together(trainer)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, _stop_after_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Note that a save is due every ``every_n_train_steps`` steps, and stop if any process was told to."""
        agree_to_stop(trainer)
        is_multiple = trainer.global_step % self.every_n_train_steps == 0
        self._is_due = bool(trainer.global_step) and is_multiple

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save before a validation, which may take long."""
        self._save_if_due(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any
    ) -> None:
        """Save before the next step."""
        self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at the end of an epoch."""
        self._save_if_due(trainer)

    def _save_if_due(self, trainer: Trainer) -> None:
        if self._is_due:
            self._is_due = False
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        self.save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let no signal stop what comes after the run."""
        watch(None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save on SIGTERM, which is raised where the step has changed nothing; other exceptions may come anywhere."""
        watch(None)
        if isinstance(exception, SIGTERMException) and trainer.state.fn == TrainerFn.FITTING:
            self.save(trainer)
            folder = trainer.default_root_dir
            rank_zero_info(
                f"stopped and saved; resume with lit-align fit -c {folder}/config.yaml --ckpt_path "
                f"{folder}/checkpoints/last.ckpt"
            )


def _stop_after_step(*_: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGTERM)
