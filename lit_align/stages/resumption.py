"""Going on from a checkpoint: what a stage saves for it, what it compares, and how it starts at the saved position."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info

from lit_align.compat.progress import Position, begin_epoch, save_position
from lit_align.data.loader import StepLoader
from lit_align.errors import ConfigError, ModelError
from lit_align.stages.hparams import describe_differences
from lit_align.stages.resume import (
    RATES,
    SettingChange,
    apply_options,
    data_settings,
    describe_changes,
    differing_parameters,
    optimizer_class,
    refuse_other_data,
    refuse_other_optimizer,
    refuse_rising_schedule,
    replay_schedule,
    setting_changes,
)


class Resumable(Protocol):
    """What is read from a stage that goes on from a checkpoint."""

    optimizer: OptimizerCallable
    lr_scheduler: LRSchedulerCallable | None
    schedule_steps: int | None
    updates: int

    @property
    def trainer(self) -> Trainer:
        """The trainer of the run."""

    @property
    def hparams(self) -> Any:
        """Settings as plain values."""

    @property
    def datamodule(self) -> Any:
        """The run's data module."""

    @property
    def is_fitting(self) -> bool:
        """Whether it is being trained, and not only loaded."""

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Trained parameters by name."""

    def compatibility_settings(self) -> dict[str, Any]:
        """Settings that must match."""

    def saved_counters(self) -> dict[str, int]:
        """Attributes that go on counting."""

    def lr_schedulers(self) -> Any:
        """The schedule, if there is one."""


class Resumption:
    """What a stage needs to go on from a checkpoint as if nothing had stopped it.

    Args:
        stage: the stage that trains.
    """

    def __init__(self, stage: Resumable) -> None:
        self.stage = stage
        self.checkpoint: dict[str, Any] | None = None  # to compare before weights are loaded
        self.changes: list[SettingChange] = []
        self.group_options: list[dict[str, Any]] = []  # of the optimizer, by this run's settings
        self._is_compared = False
        self._position: Position | None = None
        self._saved_limits: list[int | None] | None = None
        self._identity: dict[str, Any] | None = None

    def has_changed(self, *names: str) -> bool:
        """Whether the resumed run has another value of one of these settings, or of a part of one."""
        changed = [change.name for change in self.changes]
        return any(f"{name}.".startswith(f"{prefix}.") for name in changed for prefix in names)

    def compare(self) -> None:
        """Compare the settings with those of the checkpoint that was announced, if there is one."""
        if self.checkpoint is not None:
            self._compare_settings(self.checkpoint)
            self.checkpoint = None

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Add what a later run compares, and the position of this one."""
        data = self.stage.datamodule
        checkpoint["origin"] = self.stage.compatibility_settings()
        checkpoint["counts"] = self.stage.saved_counters()
        checkpoint["optimizer"] = optimizer_class(self.stage.optimizer)
        checkpoint["limits"] = self._limits
        checkpoint["schedule_steps"] = self.stage.schedule_steps
        checkpoint["data"] = {"settings": data_settings(data), "identity": self._data_identity()}
        save_position(checkpoint, self.stage.trainer)

    def compare_before_weights(self, checkpoint: dict[str, Any]) -> None:
        """Compare the settings, unless that is done, and drop the state of a schedule that was exchanged."""
        if self.stage.is_fitting and not self._is_compared:
            self._compare_settings(checkpoint)
        if self.has_changed("model.lr_scheduler"):
            checkpoint["lr_schedulers"] = []  # `start` replays the schedule of this run

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counters and the position; the model is configured.

        Raises:
            ModelError: if the checkpoint belongs to another model.
        """
        stage = self.stage
        origin = checkpoint.get("origin", {})
        differences = describe_differences(stage.compatibility_settings(), origin)
        differences += differing_parameters(stage.trained_parameters(), checkpoint["state_dict"])
        if differences:
            raise ModelError(
                f"the checkpoint does not fit this adapter: {', '.join(differences)}; "
                "use the settings of the run that wrote it (config.yaml beside it)"
            )
        for name, value in checkpoint.get("counts", {}).items():
            setattr(stage, name, value)
        self._saved_limits = checkpoint.get("limits")
        if "position" in checkpoint:
            self._position = Position(**checkpoint["position"])

    def start(self) -> None:
        """Go on at the position of the checkpoint, if there is one.

        Raises:
            ConfigError: if an epoch has other steps than that of the checkpoint.
        """
        position, stage = self._position, self.stage
        if position is None:
            return
        epoch_length, scheduler = stage.trainer.num_training_batches, stage.lr_schedulers()
        if epoch_length != position.epoch_length:
            raise ConfigError(
                f"the checkpoint is of a run with {position.epoch_length} steps an epoch, this run has {epoch_length}; "
                "resume with the same data, data.batch_size and trainer.limit_train_batches"
            )
        loader = stage.trainer.train_dataloader
        if isinstance(loader, StepLoader):
            loader.start_at(position.epochs, position.batches)
        if position.batches == 0:
            begin_epoch(stage.trainer)
        if self.has_changed(*RATES):
            apply_options(stage.trainer.optimizers[0], self.group_options)
            if stage.lr_scheduler is not None:
                replay_schedule(scheduler, stage.lr_scheduler, stage.updates)
        refuse_rising_schedule(scheduler, self._saved_limits, self._limits)

    @property
    def _limits(self) -> list[int | None]:
        return [self.stage.trainer.max_steps, self.stage.trainer.max_epochs]

    def _data_identity(self) -> dict[str, Any]:
        """What the steps depend on, read once: the rows of a run do not change."""
        if self._identity is None:
            read = getattr(self.stage.datamodule, "data_identity", dict)
            self._identity = read()
        return self._identity

    def _compare_settings(self, checkpoint: dict[str, Any]) -> None:
        """Print the settings that differ from those of the checkpoint, and refuse what cannot be resumed.

        Raises:
            ConfigError: if the data or the optimizer are other ones.
        """
        self._is_compared = True
        saved_data = checkpoint.get("data", {"settings": {}, "identity": {}})
        saved, current = checkpoint.get("hyper_parameters", {}), self.stage.hparams
        settings = data_settings(self.stage.datamodule)
        self.changes = [
            *setting_changes(saved, current, "model"),
            *setting_changes(saved_data["settings"], settings, "data"),
        ]
        saved_steps, num_steps = checkpoint.get("schedule_steps"), self.stage.schedule_steps
        if None not in (saved_steps, num_steps) and saved_steps != num_steps:
            self.changes.append(SettingChange("schedule steps", saved_steps, num_steps))
        if self.changes:
            rank_zero_info(describe_changes(self.changes))
        refuse_other_optimizer(checkpoint.get("optimizer"), optimizer_class(self.stage.optimizer))
        refuse_other_data(saved_data["identity"], self._data_identity())
