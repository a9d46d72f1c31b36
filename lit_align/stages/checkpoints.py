"""Checkpoint files that are complete after a crash, with the adapter beside them as a PEFT folder."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError

from lit_align.errors import ModelError, TrainingError
from lit_align.models.atomic_folder import TEMPORARY, remove_abandoned, sync_to_disk
from lit_align.renamed_settings import refuse_renamed_checkpoint


class SafeIO(TorchCheckpointIO):
    """Writes a checkpoint completely or not at all: a file beside it, fsync, rename.

    The checkpoint that was there before is kept under the name of `previous_checkpoint`. Lightning writes to the
    system's temporary folder and moves the file, which across file systems is a copy that a crash can cut in half.
    """

    #: called with the folder beside the checkpoint to save the adapter in; set by the stage
    save_adapter: Callable[[Path], None] | None = None

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
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, the one before it, and the adapter beside it."""
        super().remove_checkpoint(path)
        previous_checkpoint(Path(path)).unlink(missing_ok=True)
        shutil.rmtree(adapter_folder(Path(path)), ignore_errors=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; nothing in it is executed.

    Raises:
        ModelError: if it is no complete checkpoint, holds more than tensors and plain values, or has other names.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            raise ModelError(
                f"{path} holds a Python object, which could execute code; only checkpoints of tensors "
                "and plain values are loaded, as lit-align writes them"
            ) from error
        raise ModelError(f"{path} is no complete checkpoint; {_other_checkpoint(path)}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ModelError(f"{path} is no checkpoint of lit-align; {_other_checkpoint(path)}")
    refuse_renamed_checkpoint(path, checkpoint)
    return checkpoint


def previous_checkpoint(checkpoint: Path) -> Path:
    """The path of the checkpoint that another one replaced.

    Example:
        >>> previous_checkpoint(Path("checkpoints/last.ckpt")).as_posix()
        'checkpoints/last.previous.ckpt'
    """
    return checkpoint.with_suffix(".previous.ckpt")


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


def _other_checkpoint(path: Path) -> str:
    """What to resume from instead."""
    previous = previous_checkpoint(path)
    if previous.is_file() and zipfile.is_zipfile(previous):
        return f"resume from the one before it, --ckpt_path {previous}"
    return "give the path of another one, or start again"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")


def save_adapter_beside_checkpoints(trainer: Trainer, save_adapter: Callable[[Path], None]) -> None:
    """Let the trainer's checkpoints come with an adapter that ``save_adapter`` writes, if they are ours."""
    checkpoint_io = trainer.strategy.checkpoint_io
    if isinstance(checkpoint_io, SafeIO):
        checkpoint_io.save_adapter = save_adapter


def adapter_folder(checkpoint: Path) -> Path:
    """The folder of the adapter beside a checkpoint.

    Example:
        >>> adapter_folder(Path("checkpoints/last.ckpt")).as_posix()
        'checkpoints/last.adapter'
    """
    return checkpoint.with_suffix(".adapter")
