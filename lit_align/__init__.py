"""Align language models with feedback, on one GPU, from one YAML and one command."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lit_align.errors import ModelError
from lit_align.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from lit_align.stages.base import AlignmentModule

__version__ = "0.1.0"
__all__ = ["Register", "hookimpl", "load"]


def load(path: str | Path) -> AlignmentModule:
    """The stage of a saved run, with its model, its trained adapter and its objective, in eval mode.

    Args:
        path: a checkpoint, or the numbered folder of a run, which stands for its newest checkpoint.

    Raises:
        ModelError: if there is no checkpoint, or it does not fit the model it names.
    """
    file = Path(path)
    file = file / "checkpoints" / "last.ckpt" if file.is_dir() else file
    if not file.is_file():
        raise ModelError(f"there is no checkpoint {file}; give a .ckpt file or the numbered folder of a run")
    # By name, so that importing lit_align stays light; and a checkpoint may only name what is imported already.
    import_module("lit_align.plugins").load_plugins()
    for stage in pkgutil.iter_modules(import_module("lit_align.stages").__path__, "lit_align.stages."):
        import_module(stage.name)
    module: type[AlignmentModule] = import_module("lit_align.stages.base").AlignmentModule
    return module.load_from_checkpoint(file, weights_only=True).eval()
