"""Checkpoints that are whole after a crash, with the adapter beside them as an ordinary PEFT folder."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException


class SafeIO(TorchCheckpointIO):
    """Write a checkpoint completely or not at all: a file beside it, fsync, rename.

    Lightning writes to the system's temporary folder and moves the file, which across file systems is a copy that a
    crash can cut in half.
    """

    #: called with the checkpoint's path to write what belongs beside it (the adapter); set by the stage
    beside: Callable[[Path], None] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save ``checkpoint`` at ``path``; the old file stays until the new one is on the disk."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(
            "*.ckpt.*.tmp"
        ):  # of a process that was killed while writing
            left.unlink(missing_ok=True)
        temporary = Path(f"{target}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if self.beside is not None:
                self.beside(adapter_folder(target))
            os.replace(temporary, target)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            temporary.unlink(missing_ok=True)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint and the adapter beside it."""
        super().remove_checkpoint(path)
        shutil.rmtree(adapter_folder(Path(path)), ignore_errors=True)


def adapter_folder(checkpoint: Path) -> Path:
    """Where the adapter of a checkpoint lies.

    Example:
        >>> adapter_folder(Path("checkpoints/last.ckpt")).as_posix()
        'checkpoints/last.adapter'
    """
    return checkpoint.with_suffix(".adapter")


class LastCheckpoint(Checkpoint):
    """Keep the newest state in ``checkpoints/last.ckpt`` of the run folder, also when the run is told to stop.

    Args:
        every_n_train_steps: how many steps may be lost to a power cut.
    """

    def __init__(self, every_n_train_steps: int = 50) -> None:
        self.every_n_train_steps = every_n_train_steps

    def save(self, trainer: Trainer) -> None:
        """Save now; every rank must call this."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let Ctrl-C stop the run as SIGTERM does, after the step; a second one stops it at once.

        Lightning gives the signal its old handler back when the run ends.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, _stop)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save every so many steps."""
        if trainer.global_step and trainer.global_step % self.every_n_train_steps == 0:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        self.save(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save on SIGTERM, which Lightning raises between steps; any other exception may fall inside one."""
        if isinstance(exception, SIGTERMException) and trainer.state.fn == TrainerFn.FITTING:
            self.save(trainer)
            folder = trainer.default_root_dir
            rank_zero_info(
                f"stopped and saved; go on with lit-align fit -c {folder}/config.yaml --ckpt_path "
                f"{folder}/checkpoints/last.ckpt"
            )


def _stop(*_: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGTERM)


def reopen(checkpoint: dict[str, Any]) -> None:
    """Undo that a run which max_steps, max_time or early stopping ended inside an epoch has closed that epoch."""
    loops = checkpoint["loops"]["fit_loop"]
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    inside = batches["current"]["ready"] > 0 and not batches["is_last_batch"]
    if inside and epochs["current"]["processed"] == epochs["current"]["started"]:
        checkpoint["epoch"] -= 1
        for count in epochs.values():
            count["processed"] = count["completed"] = count["started"] - 1
