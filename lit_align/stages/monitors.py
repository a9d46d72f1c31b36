"""Callbacks that wait for a metric: a name that nothing measures is refused before data and weights are loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lit_align.errors import ConfigError
from lit_align.registry import closest_name

OF_LIGHTNING = ("epoch", "step")
"""Names that Lightning adds for ModelCheckpoint."""

WITH_OWN_NAMES = "rewards/"
"""Prefix of metrics whose names are those of a reward's parts, known once it has scored."""

KNOWN_PACKAGES = ("lightning", "lit_align")


def check_monitors(
    trainer: Trainer, training: Collection[str], validation: Collection[str], validates: bool
) -> None:
    """Look for the metric of each EarlyStopping and ModelCheckpoint among those of the run.

    Nothing is refused beside a callback of the user's own, which may log metrics too.

    Args:
        trainer: with its callbacks.
        training: names of the metrics of a step.
        validation: names of the metrics of a validation.
        validates: whether the run has a validation.

    Raises:
        ConfigError: naming the callback, its metric and those there are.
    """
    callbacks: Iterable[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if any(_package(part) not in KNOWN_PACKAGES for part in callbacks):
        return
    for callback in callbacks:
        if not isinstance(callback, EarlyStopping | ModelCheckpoint) or callback.monitor is None:
            continue
        name, monitor = type(callback).__name__, callback.monitor
        if monitor in validation and not validates:
            raise ConfigError(
                f"{name} monitors {monitor}, and the run has no validation; name files in data.validation, or monitor "
                f"{_listed(training)}"
            )
        is_measured = monitor in training or monitor in validation or monitor in OF_LIGHTNING
        if not is_measured and not monitor.startswith(WITH_OWN_NAMES):
            names = validation if validates else training
            closest = closest_name(monitor, names)
            hint = f"did you mean {closest}? There are" if closest else "set monitor to one of"
            raise ConfigError(
                f"{name} monitors {monitor!r}, which this run does not measure; {hint} {_listed(names)}"
            )


def _package(callback: Any) -> str:
    return str(type(callback).__module__.partition(".")[0])


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
