"""Bring a saved run back in Python."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.checkpoint_files import find_checkpoint
from lit_align.errors import ModelError

if TYPE_CHECKING:
    from lit_align.stages.base import Stage


def load(path: str | Path, **settings: Any) -> Any:
    """The stage of a saved run, with its model, its trained adapter and its objective, in eval mode.

    Args:
        path: a checkpoint, or the numbered folder of a run, which stands for its newest checkpoint.
        settings: of the stage, instead of those of the run.

    Raises:
        ModelError: if there is no checkpoint, or it does not fit the model it names.
    """
    file = find_checkpoint(path)
    stage_class = _stage_class(file)
    with (
        warnings.catch_warnings()
    ):  # a checkpoint holds the trained weights and never the base, as it should
        warnings.filterwarnings(
            "ignore", "Found keys that are in the model state dict but not in the checkpoint"
        )
        return stage_class.load_from_checkpoint(file, weights_only=True, **settings).eval()


def _stage_class(file: Path) -> type[Stage]:
    """The class that wrote the checkpoint: the checkpoint can only choose among stages that are imported."""
    import torch

    from lit_align.cli.classes import import_settings_classes
    from lit_align.stages.base import Stage

    import_settings_classes()
    saved = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    class_path = str(saved.get("hyper_parameters", {}).get("_class_path", ""))
    module, _, name = class_path.rpartition(".")
    stage_class = getattr(sys.modules.get(module), name, None)
    if not (isinstance(stage_class, type) and issubclass(stage_class, Stage)):
        raise ModelError(
            f"{file} is of the stage {class_path or '(none)'}, which is not imported; import its module first"
        )
    return stage_class
