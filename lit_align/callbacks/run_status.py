"""Writes into the run folder whether the run goes on, and how it ended."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_align.run_report.status import State, write_status


class RunStatus(Callback):
    """Keep ``status.json``: the command, its process, and whether it runs, is complete, was stopped or has failed."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The run goes on from here."""
        self._write(trainer, "running")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The run has come to its end."""
        self._write(trainer, "complete")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """The run was stopped by a signal, or failed."""
        with suppress(OSError):  # the disk may be what failed
            if isinstance(exception, SIGTERMException | KeyboardInterrupt):
                self._write(trainer, "stopped")
            else:
                reason = f"{type(exception).__name__}: {exception}"
                self._write(trainer, "failed", reason)

    def _write(self, trainer: Trainer, state: State, reason: str | None = None) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            command = cast(TrainerFn, trainer.state.fn).value
            write_status(Path(trainer.default_root_dir), command, state, reason)
