"""A resumed run writes on where the trace of the run before it ends: metrics.csv has no gap and no row twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_align.checkpoint_files import run_of_checkpoint
from lit_align.models.atomic_folder import sync_to_disk
from lit_align.run_report.record import METRICS, read_metrics


class MetricsHistory(Callback):
    """Begin ``metrics.csv`` of a resumed run with the rows that the checkpoint's run had written when it was saved."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._num_rows = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember where this run writes."""
        self._folder = Path(trainer.default_root_dir)

    def state_dict(self) -> dict[str, Any]:
        """The number of rows so far; they are on disk before the checkpoint is."""
        path = None if self._folder is None else self._folder / METRICS
        if path is None or not path.is_file():
            return {"rows": 0}
        sync_to_disk(path)
        # parsing all rows at every save would take long in the end
        return {"rows": path.read_bytes().count(b"\n") - 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of rows."""
        self._num_rows = state_dict["rows"]

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the rows of the run that is resumed."""
        if not trainer.ckpt_path or not self._num_rows:
            return
        history = run_of_checkpoint(Path(trainer.ckpt_path)) / METRICS
        if not history.is_file():
            return
        rows = read_metrics(history, self._num_rows)
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.experiment.metrics.extend(rows)
                logger.save()
