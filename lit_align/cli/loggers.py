"""Loggers by a word: ``trainer.logger: wandb``, or a list of words and Lightning's logger classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import (
    CometLogger,
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from lit_align.cli.trackio_logger import TrackioLogger
from lit_align.errors import ConfigError

LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow", "comet", "trackio"]
DEFAULT: tuple[LoggerName, ...] = ("csv", "tensorboard")
PROJECT = "lit-align"
"""Name of the project, or experiment, where runs are logged, unless an environment variable of the service has one."""

PACKAGES = {
    "wandb": ("wandb", "wandb"),
    "WandbLogger": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
    "MLFlowLogger": ("mlflow", "mlflow"),
    "comet": ("comet_ml", "comet-ml"),
    "CometLogger": ("comet_ml", "comet-ml"),
    "trackio": ("trackio", "trackio"),
    "TrackioLogger": ("trackio", "trackio"),
    "LitLogger": ("litlogger", "litlogger"),
}
"""The module that a word or a class needs, and the package that pip installs it from."""


class LoggingTrainer(Trainer):
    """Lightning's trainer, whose ``logger`` may be words.

    Args:
        logger: csv, tensorboard, wandb, mlflow, comet, trackio, a logger class of Lightning, or a list of these; true
            is csv and tensorboard. ``metrics.csv`` is written with any word.
        settings: of Lightning's trainer.
    """

    def __init__(
        self,
        *,
        logger: bool | LoggerName | Logger | list[LoggerName | Logger] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(logger=logger, **settings)  # type: ignore[arg-type]


def refuse_missing_packages(setting: Any) -> None:
    """Look for the packages of the loggers before anything is made.

    Args:
        setting: ``trainer.logger`` as the parser has it.

    Raises:
        ConfigError: naming the package and how to install it.

    Example:
        >>> refuse_missing_packages(["csv", "tensorboard"])
    """
    for item in setting if isinstance(setting, list) else [setting]:
        name = item.class_path.rpartition(".")[2] if isinstance(item, Namespace) else item
        module, package = PACKAGES.get(str(name), (None, ""))
        if module is not None and find_spec(module) is None:
            raise ConfigError(
                f"trainer.logger is {name}, and the package {package} is not installed; run `pip install {package}`, "
                "or choose csv or tensorboard"
            )


def make_loggers(setting: Any, folder: Path) -> Any:
    """Loggers for ``trainer.logger``; those that are not words stay as they are.

    Args:
        setting: words, loggers, a list of both, true, false or null.
        folder: the run folder.

    Raises:
        ConfigError: with the words of a service that refuses.
    """
    if setting in (None, True):
        setting = list(DEFAULT)
    items = setting if isinstance(setting, list) else [setting]
    if not any(isinstance(item, str) for item in items):
        return setting
    loggers = []
    for item in dict.fromkeys(items):
        loggers.append(_make_logger(item, folder) if isinstance(item, str) else item)
    if not any(isinstance(logger, CSVLogger) for logger in loggers):
        loggers.insert(0, _csv(folder))
    return loggers


def begin_runs(loggers: Iterable[Any]) -> None:
    """Begin a run in each service, which may want a login first, before Lightning does.

    Raises:
        ConfigError: with the words of a service that refuses.
    """
    for logger in loggers:
        if not isinstance(logger, CSVLogger | TensorBoardLogger):
            try:
                getattr(logger, "experiment", None)
            except Exception as error:
                raise _refusal(type(logger).__name__, error) from error


def _make_logger(name: str, folder: Path) -> Logger:
    try:
        return LOGGERS[name](folder)
    except Exception as error:
        raise _refusal(name, error) from error


def _refusal(name: str, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())
    return ConfigError(
        f"trainer.logger is {name}, which cannot log: {reason}; correct that, or choose csv or tensorboard"
    )


def _csv(folder: Path) -> Logger:
    return CSVLogger(str(folder), name="", version="", flush_logs_every_n_steps=1)


def _tensorboard(folder: Path) -> Logger:
    return TensorBoardLogger(str(folder), name="", version="", default_hp_metric=False)


def _wandb(folder: Path) -> Logger:
    project = _from_environment("WANDB_PROJECT")
    return WandbLogger(name=_run_name(folder), save_dir=str(folder), project=project)


def _mlflow(folder: Path) -> Logger:
    experiment = _from_environment("MLFLOW_EXPERIMENT_NAME")
    # MLflow's own default; that of Lightning's logger is a store of files, which MLflow 3 refuses
    store = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    return MLFlowLogger(experiment, run_name=_run_name(folder), tracking_uri=store)


def _comet(folder: Path) -> Logger:
    project = _from_environment("COMET_PROJECT_NAME")
    return CometLogger(project=project, name=_run_name(folder), offline_directory=str(folder))


def _trackio(folder: Path) -> Logger:
    return TrackioLogger(_from_environment("TRACKIO_PROJECT"), _run_name(folder))


LOGGERS: dict[str, Callable[[Path], Logger]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "comet": _comet,
    "trackio": _trackio,
}
"""How the logger of each word is made for a run folder."""


def _from_environment(variable: str) -> str:
    return os.environ.get(variable, PROJECT)


def _run_name(folder: Path) -> str:
    """The run as it is called in a service, such as ``dpo/0``."""
    return "/".join(folder.parts[-2:])
