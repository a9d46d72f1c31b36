"""Where a run keeps its checkpoints, and what is read from them. ``import lit_align`` must not import torch."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

from lit_align.errors import ModelError
from lit_align.renamed_settings import refuse_renamed_checkpoint


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint at ``path``: a .ckpt file, or the newest one of a run's numbered folder.

    Raises:
        ModelError: if there is none.
    """
    file = Path(path)
    if file.is_dir():
        file = last_checkpoint(file)
    if not file.is_file():
        raise ModelError(
            f"there is no checkpoint {file}; give a .ckpt file or the numbered folder of a run"
        )
    return file


def last_checkpoint(run: Path) -> Path:
    """The path of the newest checkpoint in the numbered folder of a run.

    Example:
        >>> last_checkpoint(Path("runs/0")).as_posix()
        'runs/0/checkpoints/last.ckpt'
    """
    return run / "checkpoints" / "last.ckpt"


def run_of_checkpoint(checkpoint: Path) -> Path:
    """The numbered folder of the run that saved a checkpoint.

    Example:
        >>> run_of_checkpoint(Path("/runs/0/checkpoints/last.ckpt")).as_posix()
        '/runs/0'
    """
    return checkpoint.resolve().parents[1]


def previous_checkpoint(checkpoint: Path) -> Path:
    """The path of the checkpoint that another one replaced.

    Example:
        >>> previous_checkpoint(Path("checkpoints/last.ckpt")).as_posix()
        'checkpoints/last.previous.ckpt'
    """
    return checkpoint.with_suffix(".previous.ckpt")


def adapter_folder(checkpoint: Path) -> Path:
    """The folder of the adapter beside a checkpoint.

    Example:
        >>> adapter_folder(Path("checkpoints/last.ckpt")).as_posix()
        'checkpoints/last.adapter'
    """
    return checkpoint.with_suffix(".adapter")


def read_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; nothing in it is executed.

    Args:
        path: the file.
        mmap: read weights only when they are used, for callers that need few of them or none.

    Raises:
        ModelError: if it is no complete checkpoint, holds more than tensors and plain values, or has other names.
    """
    import torch

    if path.is_dir():
        raise ModelError(
            f"{path} is a folder; give a checkpoint in it, such as {last_checkpoint(path)}, or start a new run from an "
            "adapter with model.init_adapter"
        )
    if not _is_intact(path):
        raise ModelError(f"{path} is no complete checkpoint; {_other_checkpoint(path)}")
    try:
        checkpoint: dict[str, Any] = torch.load(
            path, map_location="cpu", weights_only=True, mmap=mmap
        )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds a Python object, which could execute code; only checkpoints of tensors "
            "and plain values are loaded, as lit-align writes them"
        ) from error
    except Exception as error:  # of a file of another kind, which says nothing about this one
        raise ModelError(_foreign(path)) from error
    if not _is_of_stage(checkpoint):
        raise ModelError(_foreign(path))
    refuse_renamed_checkpoint(path, checkpoint)
    return checkpoint


def _is_of_stage(checkpoint: Any) -> bool:
    """Whether the content is what a stage saves: weights, and settings with the stage's class among them."""
    if not isinstance(checkpoint, dict):
        return False
    settings, weights = checkpoint.get("hyper_parameters"), checkpoint.get("state_dict")
    has_class = isinstance(settings, dict) and isinstance(settings.get("_class_path"), str)
    return has_class and isinstance(weights, dict)


def _is_intact(path: Path) -> bool:
    """Whether the archive is whole and its bytes have the checksums that were saved; torch does not compare them."""
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return archive.testzip() is None
        except Exception:  # broken bytes raise errors of many kinds
            return False


def _foreign(path: Path) -> str:
    return f"{path} is no checkpoint of lit-align; {_other_checkpoint(path)}"


def _other_checkpoint(path: Path) -> str:
    """Which one to give instead."""
    previous = previous_checkpoint(path)
    if previous.is_file() and _is_intact(previous):
        return f"give the one before it, {previous}"
    return "give the path of another one, or start again"
