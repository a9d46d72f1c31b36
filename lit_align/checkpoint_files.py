"""Where a run keeps its checkpoints."""

from __future__ import annotations

from pathlib import Path

from lit_align.errors import ModelError


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint at ``path``: a .ckpt file, or the newest one of a run's numbered folder.

    Raises:
        ModelError: if there is none.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "checkpoints" / "last.ckpt"
    if not file.is_file():
        raise ModelError(
            f"there is no checkpoint {file}; give a .ckpt file or the numbered folder of a run"
        )
    return file
