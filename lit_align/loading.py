"""Load a saved run in Python. ``import lit_align`` imports this file, so it imports the rest when it is called."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from lit_align.checkpoint_files import find_checkpoint, read_checkpoint
from lit_align.errors import ModelError

MISSING_KEYS = "Found keys that are in the model state dict but not in the checkpoint"


def load(path: str | Path, **settings: Any) -> Any:
    """The stage of a saved run, with its model, its trained adapter and its objective, in eval mode.

    Args:
        path: a checkpoint, or the numbered folder of a run, whose newest checkpoint is loaded.
        settings: of the stage, which replace those of the run.

    Raises:
        ModelError: if there is no checkpoint, or it does not fit the model it names.
    """
    from lit_align.compat.peft import ignore_deprecated_name

    file = find_checkpoint(path)
    stage_class = _stage_class(file)
    with warnings.catch_warnings():
        # a checkpoint holds the trained weights only, never those of the base
        warnings.filterwarnings("ignore", MISSING_KEYS)
        ignore_deprecated_name()
        return stage_class.load_from_checkpoint(file, weights_only=True, **settings).eval()


def _stage_class(file: Path) -> Any:
    """The class that wrote the checkpoint: a checkpoint can only choose among stages that are imported."""
    from lightning.pytorch import LightningModule

    from lit_align.plugins import load_plugins

    classes = load_plugins().load_stages()
    stages = tuple(cls for cls in classes if issubclass(cls, LightningModule))
    class_path = str(read_checkpoint(file, mmap=True)["hyper_parameters"].get("_class_path", ""))
    module, _, name = class_path.rpartition(".")
    stage_class = getattr(sys.modules.get(module), name, None)
    if not (isinstance(stage_class, type) and issubclass(stage_class, stages)):
        raise ModelError(
            f"{file} is of the stage {class_path or '(none)'}, which is not imported; import its module first"
        )
    return stage_class
