"""Align language models with feedback, on one GPU, from one YAML and one command."""

from __future__ import annotations

import pkgutil
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.errors import ModelError
from lit_align.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from lit_align.stages.stage import Stage

__version__ = "0.1.0"
__all__ = ["Register", "hookimpl", "load"]


def load(path: str | Path, **settings: Any) -> Any:
    """The stage of a saved run, with its model, its trained adapter and its objective, in eval mode.

    Args:
        path: a checkpoint, or the numbered folder of a run, which stands for its newest checkpoint.
        settings: of the stage, instead of those of the run.

    Raises:
        ModelError: if there is no checkpoint, or it does not fit the model it names.
    """
    file = Path(path)
    file = file / "checkpoints" / "last.ckpt" if file.is_dir() else file
    if not file.is_file():
        raise ModelError(f"there is no checkpoint {file}; give a .ckpt file or the numbered folder of a run")
    # By name, so that importing lit_align stays light; the checkpoint can then only choose among these.
    import_module("lit_align.plugins").load_plugins()
    for stage in pkgutil.iter_modules(import_module("lit_align.stages").__path__, "lit_align.stages."):
        import_module(stage.name)
    wanted = _class_path(file)
    module, _, name = wanted.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if not (isinstance(found, type) and issubclass(found, import_module("lit_align.stages.stage").Stage)):
        raise ModelError(f"{file} is of the stage {wanted or '(none)'}, which is not imported; import its module first")
    stage_class: type[Stage] = found
    with warnings.catch_warnings():  # a checkpoint holds what was trained and never the base, as it should
        warnings.filterwarnings("ignore", "Found keys that are in the model state dict but not in the checkpoint")
        return stage_class.load_from_checkpoint(file, weights_only=True, **settings).eval()


def _class_path(file: Path) -> str:
    """Import path of the stage that wrote the checkpoint, as LightningCLI notes it there."""
    saved = import_module("torch").load(file, map_location="cpu", weights_only=True, mmap=True)
    return str(saved.get("hyper_parameters", {}).get("_class_path", ""))
