"""What ``predict`` leaves behind: one answer a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter


class AnswerWriter(BasePredictionWriter):
    """Append answers to ``answers.jsonl`` in the run folder as they are made; each process writes a file of its own."""

    def __init__(self, write_interval: Literal["batch"] = "batch") -> None:
        super().__init__(write_interval)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: list[dict[str, Any]],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the answers of one batch."""
        with self._path(trainer).open("a", encoding="utf-8") as file:
            # a column from Parquet may be a date or bytes, which JSON has no word for
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in prediction)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where they are."""
        if trainer.is_global_zero:
            print(f"answers are in {self._path(trainer)}")

    def _path(self, trainer: Trainer) -> Path:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / ("answers.jsonl" if trainer.is_global_zero else f"answers.{trainer.global_rank}.jsonl")
