"""Optimizers and schedulers that a setting names: those that cannot work are refused before any weights are loaded."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_align.errors import ConfigError
from lit_align.stages.schedule import expected_steps


class Scheduled(Protocol):
    """What is read from a stage whose learning rate a scheduler changes."""

    optimizer: OptimizerCallable
    lr_scheduler: LRSchedulerCallable | None

    @property
    def trainer(self) -> Trainer:
        """The trainer of the run."""

    @property
    def datamodule(self) -> Any:
        """The run's data module."""

    @property
    def updates_per_step(self) -> int:
        """Updates in a step, at most."""

    def validation_names(self) -> Sequence[str]:
        """Metrics of a validation that a scheduler may wait for."""


def make_on_trial(stage: Scheduled) -> Any:
    """The scheduler of a stage on its optimizer over a small matrix; None if it has none.

    Raises:
        ConfigError: if the optimizer or the scheduler cannot be made.
    """
    try:
        optimizer = stage.optimizer([torch.nn.Parameter(torch.zeros(2, 2))])
    except Exception as error:  # a class of any package
        raise ConfigError(
            f"model.optimizer {_class_name(stage, 'optimizer')}cannot be made: {_reason(error)}; correct its settings"
        ) from error
    if stage.lr_scheduler is None:
        return None
    try:
        return stage.lr_scheduler(optimizer)
    except Exception as error:
        raise ConfigError(
            f"model.lr_scheduler {_class_name(stage, 'lr_scheduler')}cannot be made: {_reason(error)}; correct its "
            "settings, or set model.schedule, which has warmup and decay"
        ) from error


def check_scheduler(stage: Scheduled) -> None:
    """Try the scheduler of a stage on an optimizer of one number, over all updates of the run.

    Raises:
        ConfigError: if it cannot be made, is over too soon, or waits for a metric that there is not.
    """
    if stage.lr_scheduler is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no step of the optimizer comes between
        scheduler = make_on_trial(stage)
        if isinstance(scheduler, ReduceLROnPlateau):
            _check_monitor(stage, scheduler)
            return
        num_steps = expected_steps(stage.trainer, stage.datamodule) or 0
        for number in range(num_steps * stage.updates_per_step):
            try:
                scheduler.step()
            except Exception as error:
                raise ConfigError(
                    f"model.lr_scheduler {type(scheduler).__name__} fails after {number} of "
                    f"{num_steps * stage.updates_per_step} updates: {error}; correct its settings, or set "
                    "model.schedule, which is as long as the run"
                ) from error


def step_on_plateau(scheduler: Any, metrics: Mapping[str, Tensor]) -> None:
    """Step a ReduceLROnPlateau with the metric that it monitors; leave any other as it is."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(float(metrics[scheduler.monitor]))  # type: ignore[attr-defined]


def _class_name(stage: Scheduled, setting: str) -> str:
    """The class of a setting and its settings, followed by a blank; empty in a stage that was made in Python."""
    value = getattr(stage, "hparams", {}).get(setting)
    if not isinstance(value, Mapping) or "class_path" not in value:
        return ""
    module, _, name = str(value["class_path"]).rpartition(".")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    settings = []
    for key, item in (value.get("init_args") or {}).items():
        default = parameters[key].default if key in parameters else None
        if item != default and not (isinstance(item, list) and tuple(item) == default):
            settings.append(f"{key}={item}")
    return f"{name}({', '.join(settings)}) "


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or repr(error)


def _check_monitor(stage: Scheduled, scheduler: ReduceLROnPlateau) -> None:
    """Refuse a metric that no validation of the run measures."""
    monitor, names = getattr(scheduler, "monitor", None), stage.validation_names()
    if not names:
        raise ConfigError(
            f"model.lr_scheduler waits for a metric, and {type(stage).__name__} has none; set model.schedule instead"
        )
    choices = f"set lr_scheduler.monitor to one of {', '.join(names)}"
    if monitor is None:
        raise ConfigError(
            f"model.lr_scheduler is torch's ReduceLROnPlateau, which names no metric; give "
            f"lightning.pytorch.cli.ReduceLROnPlateau, and {choices}"
        )
    if monitor not in names:
        raise ConfigError(
            f"model.lr_scheduler waits for the metric {monitor!r}, which no validation measures; {choices}"
        )
    if not _validates(stage.trainer, stage.datamodule):
        raise ConfigError(
            f"model.lr_scheduler waits for {monitor}, and the run has no validation; name files in data.validation, or "
            "set model.schedule instead"
        )


def _validates(trainer: Trainer, data: Any) -> bool:
    """Whether a run whose data are read has a validation."""
    limit = trainer.limit_val_batches
    return bool(limit) and bool(data.val_dataloader())
