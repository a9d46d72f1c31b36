"""Runs of a few steps on a model of two layers, with what they trained on and what became of the weights."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lit_align.errors import PluginError
from lit_align.models.load import Base
from lit_align.testing.tiny_model import write_tiny_model

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule
    from torch import Tensor

    from lit_align.stages.base import Stage

MakeStage = Callable[[Base], "Stage"]
"""Makes a stage, new each time, on a base."""
MakeData = Callable[[str], "LightningDataModule"]
"""Makes a data module, new each time, that trains on a file."""
Rows = Sequence[Mapping[str, Any]] | Path
"""Rows of a JSONL file, or another file."""

EPOCHS = 2
PLAIN = (
    str,
    bytes,
    bool,
    int,
    float,
    complex,
    Decimal,
    Enum,
    PurePath,
    date,
    time,
    timedelta,
    range,
    slice,
)
"""What its ``repr`` says all of."""


@dataclass
class ShortRun:
    """What a run of `EPOCHS` epochs did.

    Args:
        batches: a fingerprint of each batch, in order.
        steps_in_epoch: how many batches an epoch had.
        start: the trained parameters as the run began.
        trained: the same at its end.
        changed: names of other parameters that are not what they were.
        losses: after each batch, where the stage logs one.
    """

    batches: list[str] = field(default_factory=list)
    steps_in_epoch: int = 0
    start: dict[str, Tensor] = field(default_factory=dict)
    trained: dict[str, Tensor] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Laboratory:
    """A folder with a tiny model and a file of rows.

    Args:
        folder: for the runs.
        base: the tiny model.
        file: the rows.
    """

    folder: Path
    base: Base
    file: Path

    def other_file(self, name: str) -> Path:
        """The path of a file of the same kind, which is not there."""
        return self.folder / f"{name}{self.file.suffix}"

    def train(
        self,
        stage: Stage,
        data: LightningDataModule,
        *,
        resume: Path | None = None,
        save_after: int | None = None,
    ) -> tuple[ShortRun, Path]:
        """Train, and save a checkpoint after some batches.

        Args:
            stage: to train.
            data: to train on.
            resume: a checkpoint to go on from.
            save_after: batches before the checkpoint is saved; None saves none.

        Returns:
            What was noted, and where the checkpoint is.
        """
        from lightning.pytorch import Trainer, seed_everything
        from lightning.pytorch.utilities.seed import isolate_rng

        number = sum(1 for _ in self.folder.glob("run*"))
        folder = self.folder / f"run{number}"
        folder.mkdir()
        path, run = folder / "middle.ckpt", ShortRun()
        recorder = make_recorder(run, path, save_after)
        with isolate_rng(), quiet_lightning():
            seed_everything(number, verbose=False)  # a run may not depend on what was drawn before
            trainer = Trainer(
                accelerator="cpu", devices=1, max_epochs=EPOCHS, logger=False, callbacks=[recorder],
                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                num_sanity_val_steps=0, default_root_dir=folder,
            )  # fmt: skip
            trainer.fit(stage, datamodule=data, ckpt_path=resume, weights_only=True)
        return run, path


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """No warnings and no log lines of runs that are too short to be anybody's."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def laboratory(rows: Rows) -> Iterator[Laboratory]:
    """A temporary folder with a tiny model and the rows."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        file = rows if isinstance(rows, Path) else folder / "rows.jsonl"
        if not isinstance(rows, Path):
            lines = [json.dumps(row) for row in rows]
            file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        yield Laboratory(folder, write_tiny_model(folder / "model"), file)


def make_recorder(run: ShortRun, path: Path, save_after: int | None) -> Any:
    """A callback that notes what a run does, and saves its checkpoint.

    Args:
        run: to note it in.
        path: of the checkpoint.
        save_after: batches before it is saved; None saves none.
    """
    from lightning.pytorch import Callback

    class Recorder(Callback):
        def on_train_start(self, trainer: Any, stage: Any) -> None:
            run.start = _copies(stage.trained_parameters())
            self.others = _others(stage)
            run.steps_in_epoch = int(trainer.num_training_batches)

        def on_train_batch_start(self, trainer: Any, stage: Any, batch: Any, number: int) -> None:
            run.batches.append(fingerprint(batch))

        def on_train_batch_end(
            self, trainer: Any, stage: Any, outputs: Any, batch: Any, number: int
        ) -> None:
            loss = trainer.callback_metrics.get("loss")
            run.losses += [] if loss is None else [float(loss)]
            if len(run.batches) == save_after:
                trainer.save_checkpoint(path)

        def on_train_end(self, trainer: Any, stage: Any) -> None:
            run.trained = _copies(stage.trained_parameters())
            after = _others(stage)
            run.changed = [name for name, value in self.others.items() if after.get(name) != value]

    return Recorder()


def fingerprint(value: Any) -> str:
    """A hash of tensors and arrays, and of what holds them: sequences, sets, mappings, and the attributes of objects.

    Raises:
        PluginError: if there is something whose content cannot be read, such as an iterator.

    Example:
        >>> import torch
        >>> fingerprint([torch.ones(2), "a"]) == fingerprint([torch.ones(2), "a"])
        True
        >>> fingerprint([torch.ones(2)]) == fingerprint([torch.zeros(2)])
        False
    """
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part + b"\0")
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        yield f"{plain.dtype} {list(plain.shape)}".encode()
        yield plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield repr(key).encode()
            yield from _parts(item)
    elif isinstance(value, np.ndarray | np.generic):
        yield f"{value.dtype} {value.shape}".encode()
        yield from [value.tobytes()] if not value.dtype.hasobject else _parts(value.tolist())
    elif isinstance(value, list | tuple | deque):
        yield f"{type(value).__name__} {len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, set | frozenset):
        yield repr(sorted(map(fingerprint, value))).encode()
    elif value is None or isinstance(value, (*PLAIN, torch.dtype, torch.device)):
        yield repr(value).encode()
    elif callable(value) and hasattr(value, "__qualname__"):
        yield f"{value.__module__}.{value.__qualname__}".encode()
    else:
        attributes = _attributes(value)
        yield type(value).__name__.encode()
        yield from _parts(attributes)


def _attributes(value: Any) -> dict[str, Any]:
    """Those in an object's ``__dict__`` and its slots, also of its parents."""
    names = [*getattr(value, "__dict__", ())]
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            is_private = name.startswith("__") and not name.endswith("__")
            names.append(f"_{cls.__name__.lstrip('_')}{name}" if is_private else name)
    names = [name for name in names if name not in ("__dict__", "__weakref__")]
    if not names and not hasattr(value, "__dict__"):
        raise PluginError(
            f"a batch has a {type(value).__name__}, whose content cannot be compared with that of another run; give it "
            "attributes, or put tensors, arrays, numbers and texts into the batch"
        )
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _copies(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in parameters.items()}


def _others(stage: Any) -> dict[str, str]:
    """Fingerprints of the parameters that the stage does not train; a head's buffers may follow its scores."""
    trained = stage.trained_parameters()
    weights = stage.named_parameters()
    return {name: fingerprint(weight) for name, weight in weights if name not in trained}
