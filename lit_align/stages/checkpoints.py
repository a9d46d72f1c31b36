"""Checkpoint files that are complete after a crash, with the adapter beside them as a PEFT folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lit_align.models.atomic_folder import sync_to_disk
from lit_align.renamed_settings import refuse_renamed_checkpoint


class SafeIO(TorchCheckpointIO):
    """Writes a checkpoint completely or not at all: a file beside it, fsync, rename.

    Lightning writes to the system's temporary folder and moves the file, which across file systems is a copy that a
    crash can cut in half.
    """

    #: called with the folder beside the checkpoint to save the adapter in; set by the stage
    save_adapter: Callable[[Path], None] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save ``checkpoint`` at ``path``; the old file stays until the new one is on disk."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in target.parent.glob("*.ckpt.*.tmp"):  # of a process killed while writing
            leftover.unlink(missing_ok=True)
        temporary = Path(f"{target}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if self.save_adapter is not None:
                self.save_adapter(adapter_folder(target))
            os.replace(temporary, target)
            sync_to_disk(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        """The content of a checkpoint, before anything is restored from it.

        Raises:
            ModelError: if its stage or settings have other names by now.
        """
        checkpoint = super().load_checkpoint(path, *args, **options)
        refuse_renamed_checkpoint(Path(path), checkpoint)
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint and the adapter beside it."""
        super().remove_checkpoint(path)
        shutil.rmtree(adapter_folder(Path(path)), ignore_errors=True)


def adapter_folder(checkpoint: Path) -> Path:
    """The folder of the adapter beside a checkpoint.

    Example:
        >>> adapter_folder(Path("checkpoints/last.ckpt")).as_posix()
        'checkpoints/last.adapter'
    """
    return checkpoint.with_suffix(".adapter")
