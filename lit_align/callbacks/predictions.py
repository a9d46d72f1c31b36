"""Writes predictions one record a line, and resumes an interrupted predict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lit_align.errors import ConfigError
from lit_align.jsonl import append_jsonl, read_jsonl
from lit_align.stages.language_model_stage import LanguageModelStage


class PredictionWriter(BasePredictionWriter):
    """Append answers to ``answers.jsonl`` in the run folder, batch by batch; each process writes its own file.

    A reward model gives scores, not answers: its file is ``scores.jsonl``.

    Args:
        answers: folder of an interrupted run of predict: its answers are copied, and only the others are sampled, as
            that run would have sampled them.
    """

    def __init__(self, answers: str | None = None) -> None:
        super().__init__("batch")
        self.interrupted_run = None if answers is None else Path(answers)
        self.copied_lines: list[bytes] = []
        self.content = "answers"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find which answers of the interrupted run to copy.

        These are whole batches: what shares a batch can change the last bit.

        Raises:
            ConfigError: if there are no answers, or they belong to other prompts.
        """
        super().setup(trainer, pl_module, stage)
        model = cast(LanguageModelStage, pl_module)
        self.content = "answers" if "policy" in model.trained_roles else "scores"
        if self.interrupted_run is None:
            return
        if stage != "predict":
            raise ConfigError(
                f"answers is {str(self.interrupted_run)!r}, and only predict uses it; leave it out"
            )
        if not any(self.interrupted_run.glob(f"{self.content}*.jsonl")):
            raise ConfigError(
                f"there are no {self.content} in {str(self.interrupted_run)!r}; give the numbered folder of a predict"
            )
        prompts = model.datamodule.predict_dataloader()
        sources = [tree.group.source for _, tree in prompts.trees]
        file = self.interrupted_run / self._file_name(trainer)
        lines = _complete_lines(file)
        if [json.loads(line)["source"] for line in lines] != sources[: len(lines)]:
            raise ConfigError(
                f"{file} belongs to other prompts than data.validation; use that run's data and devices"
            )
        if len(lines) < len(sources):
            lines = lines[: len(lines) // prompts.batch_size * prompts.batch_size]
        self.copied_lines = lines
        model.num_answered = len(lines)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the answers of the interrupted run.

        Raises:
            ConfigError: if it had other settings, so that its answers are another model's.
        """
        if self.interrupted_run is None:
            return
        folders = (self.interrupted_run, Path(trainer.default_root_dir))
        files = [folder / "config.yaml" for folder in folders]
        if all(file.exists() for file in files):  # a run made in Python has none
            interrupted, current = (yaml.safe_load(file.read_text("utf-8")) for file in files)
            for section in ("model", "data", "ckpt_path"):
                if interrupted[section] != current[section]:
                    raise ConfigError(
                        f"{self.interrupted_run} has other settings of {section}; resume with -c {files[0]}"
                    )
        copied = b"".join(line + b"\n" for line in self.copied_lines)
        self._path(trainer).write_bytes(copied)

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
        append_jsonl(self._path(trainer), prediction)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the path of the answers, and the report of best-of-N."""
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        best_of = cast(LanguageModelStage, pl_module).best_of
        if best_of is not None:
            folder = Path(trainer.default_root_dir)
            rows: list[dict[str, Any]] = []
            for file in sorted(folder.glob("answers*.jsonl")):
                rows += read_jsonl(file)
            best_of.report(folder, rows)
        print(f"{self.content} are in {self._path(trainer)}")

    def _file_name(self, trainer: Trainer) -> str:
        rank = "" if trainer.is_global_zero else f".{trainer.global_rank}"
        return f"{self.content}{rank}.jsonl"

    def _path(self, trainer: Trainer) -> Path:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / self._file_name(trainer)


def _complete_lines(file: Path) -> list[bytes]:
    """Lines of a file without line ends; a last one without its line end was cut off."""
    return file.read_bytes().split(b"\n")[:-1] if file.exists() else []
