"""Checkpoint files that are complete after a crash, with the adapter beside them as a PEFT folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError

from lit_align.checkpoint_files import adapter_folder, previous_checkpoint, read_checkpoint
from lit_align.disk_errors import disk_error
from lit_align.errors import TrainingError
from lit_align.models.atomic_folder import TEMPORARY, remove_abandoned, sync_to_disk


class SafeIO(TorchCheckpointIO):
    """Writes a checkpoint completely or not at all: a file beside it, fsync, rename.

    The checkpoint that was there before is kept under the name of `previous_checkpoint`. Lightning writes to the
    system's temporary folder and moves the file, which across file systems is a copy that a crash can cut in half.
    """

    #: called with the folder beside the checkpoint to save the adapter in; set by the stage
    save_adapter: Callable[[Path], None] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._read_ahead: dict[Path, dict[str, Any]] = {}

    def read_ahead(self, path: Path) -> dict[str, Any]:
        """The content of a checkpoint, which the next `load_checkpoint` does not read again.

        Raises:
            ModelError: as `load_checkpoint`.
        """
        self._read_ahead = {path: read_checkpoint(path)}
        return self._read_ahead[path]

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save ``checkpoint`` at ``path``; the older file stays until this one is on disk.

        Raises:
            TrainingError: if it cannot be written.
        """
        target = Path(path)
        try:
            self._write(checkpoint, target)
        except (OSError, RuntimeError, SafetensorError) as error:
            state = (
                f"the last complete one is still {target}"
                if target.exists()
                else "nothing was saved before"
            )
            raise TrainingError(
                f"the checkpoint {target} could not be written: {_reason(error)}; {state}; make room, or make the "
                "folder writable, and resume"
            ) from error

    def _write(self, checkpoint: dict[str, Any], target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent, f"*.ckpt.*{TEMPORARY}")
        temporary = Path(f"{target}.{os.getpid()}{TEMPORARY}")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if self.save_adapter is not None:
                self.save_adapter(adapter_folder(target))
            _keep_previous(target)
            os.replace(temporary, target)
            sync_to_disk(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The content of a checkpoint, before anything is restored from it; nothing in it is executed.

        Raises:
            ModelError: if it is broken, or its stage or settings have other names by now.
        """
        checkpoint = self._read_ahead.pop(Path(path), None)
        return read_checkpoint(Path(path)) if checkpoint is None else checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, the one before it, and the adapter beside it."""
        super().remove_checkpoint(path)
        previous_checkpoint(Path(path)).unlink(missing_ok=True)
        shutil.rmtree(adapter_folder(Path(path)), ignore_errors=True)


def _keep_previous(target: Path) -> None:
    """Give the checkpoint that is about to be replaced its second name; it has its first one until then."""
    if not target.exists():
        return
    link = Path(f"{target}.link.{os.getpid()}{TEMPORARY}")
    link.unlink(missing_ok=True)
    try:
        os.link(target, link)
    except OSError:  # a file system without links
        shutil.copyfile(target, link)
    os.replace(link, previous_checkpoint(target))


def _reason(error: Exception) -> str:
    return disk_error(error) or str(getattr(error, "strerror", None) or error).rstrip(".")


def save_adapter_beside_checkpoints(trainer: Trainer, save_adapter: Callable[[Path], None]) -> None:
    """Let the trainer's checkpoints come with an adapter that ``save_adapter`` writes, if they are ours."""
    checkpoint_io = trainer.strategy.checkpoint_io
    if isinstance(checkpoint_io, SafeIO):
        checkpoint_io.save_adapter = save_adapter
