"""What a resumed run may change: settings that differ are listed, and applied or refused."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_align.annotators import with_hashed_annotators
from lit_align.errors import ConfigError
from lit_align.stages.hparams import means_same_model, plain_value

RATES = (
    "model.optimizer",
    "model.lr_scheduler",
    "model.schedule",
    "model.critic",
    "model.lr_ratio",
)
"""Settings that the options of the optimizer's parameter groups depend on."""


class SettingChange(NamedTuple):
    """A setting whose value in a checkpoint is another one than in this run."""

    name: str
    saved: Any
    current: Any

    def __str__(self) -> str:
        return f"{self.name} {_shown(self.saved)} -> {_shown(self.current)}"


def setting_changes(
    saved: Mapping[str, Any], current: Mapping[str, Any], section: str
) -> list[SettingChange]:
    """Settings that differ; of a class that was exchanged only its name.

    Args:
        saved: settings in the checkpoint.
        current: settings of this run.
        section: where they are in the YAML, ``model`` or ``data``.

    Example:
        >>> saved = {"lr": 0.1, "loss": {"class_path": "dpo.DPO", "init_args": {"beta": 0.1}}}
        >>> current = {"lr": 0.2, "loss": {"class_path": "dpo.DPO", "init_args": {"beta": 0.5}}}
        >>> print(*setting_changes(saved, current, "model"), sep=", ")
        model.lr 0.1 -> 0.2, model.loss.beta 0.1 -> 0.5
    """
    changes: list[SettingChange] = []
    for name in current:
        if name in saved and not name.startswith("_"):
            changes += _changes(f"{section}.{name}", saved[name], current[name])
    return changes


def _changes(name: str, saved: Any, current: Any) -> list[SettingChange]:
    if means_same_model(name.removeprefix("model."), saved, current):
        return []
    if not isinstance(saved, dict) or not isinstance(current, dict):
        return [SettingChange(name, saved, current)]
    saved_class, current_class = saved.get("class_path"), current.get("class_path")
    if _class_name(saved_class) != _class_name(current_class):
        return [SettingChange(name, saved_class, current_class)]
    changes: list[SettingChange] = []
    saved_arguments, arguments = saved.get("init_args", saved), current.get("init_args", current)
    for key in arguments:
        if key in saved_arguments and key != "class_path":
            changes += _changes(f"{name}.{key}", saved_arguments[key], arguments[key])
    return changes


def data_settings(data: Any) -> dict[str, Any]:
    """Settings of a data module as plain values, but for the paths of its files; with hashes for people's names."""
    names: set[str] = set()
    for cls in type(data).__mro__:
        if "__init__" in vars(cls):
            names.update(signature(cls).parameters)
    settings = {}
    for name, value in sorted(vars(data).items()):
        if name in names and name != "trainer":
            settings[name] = plain_value(value)
    return dict(with_hashed_annotators(settings))


def optimizer_class(optimizer: OptimizerCallable) -> str:
    """Name of the class of the optimizer that a setting makes."""
    example = optimizer([torch.nn.Parameter(torch.zeros(1))])
    return f"{type(example).__module__}.{type(example).__qualname__}"


def refuse_other_data(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse data whose steps are not those of the checkpoint, also between two epochs.

    Raises:
        ConfigError: with all that differs.
    """
    differing = []
    for name, value in current.items():
        if name in saved and saved[name] != value:
            differing.append(f"{name} {saved[name]} -> {value}")
    if differing:
        raise ConfigError(
            f"the checkpoint was made with other data: {', '.join(differing)}; resume with the same rows in the same "
            "order and the same data settings, or start a new run from its adapter with model.init_adapter"
        )


def refuse_other_optimizer(saved: str | None, current: str) -> None:
    """Refuse an optimizer that cannot read the saved state.

    Raises:
        ConfigError: naming both.
    """
    if saved is not None and saved != current:
        raise ConfigError(
            f"the checkpoint holds the state of {_class_name(saved)}, and this run has {_class_name(current)}; resume "
            "with the same model.optimizer, or start a new run from its adapter with model.init_adapter"
        )


def differing_parameters(
    parameters: Mapping[str, Tensor], saved_weights: Mapping[str, Tensor]
) -> list[str]:
    """A phrase with the number of parameters that a checkpoint lacks, adds or has in another shape; none if it fits."""
    shapes = {name: weight.shape for name, weight in parameters.items()}
    saved_shapes = {name: weight.shape for name, weight in saved_weights.items()}
    names = {**shapes, **saved_shapes}
    differing = sorted(name for name in names if shapes.get(name) != saved_shapes.get(name))
    if not differing:
        return []
    return [f"{len(differing)} parameters differ, such as {differing[0]}"]


def describe_changes(changes: Sequence[SettingChange]) -> str:
    """The table of what differs."""
    return "\n  ".join(["resumed with other settings:", *map(str, changes)])


def apply_options(optimizer: torch.optim.Optimizer, options: Sequence[Mapping[str, Any]]) -> None:
    """Give the parameter groups the options of this run instead of those of the checkpoint."""
    for group, settings in zip(optimizer.param_groups, options, strict=True):
        group.pop("initial_lr", None)
        group.update(settings)


def replay_schedule(scheduler: Any, make_scheduler: LRSchedulerCallable, num_updates: int) -> None:
    """Bring the schedule where it is after so many updates under the settings of this run.

    Raises:
        ConfigError: if the schedule is shorter, or depends on more than the number of updates.
    """
    replayed = cast(Any, make_scheduler(scheduler.optimizer))
    if isinstance(replayed, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise ConfigError(
            "model.lr_scheduler is ReduceLROnPlateau, whose rate follows from the validations so far; resume with the "
            "same model.optimizer and model.lr_scheduler"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no step of the optimizer comes between
            for _ in range(num_updates):
                replayed.step()
    except ValueError as error:
        raise ConfigError(
            f"model.lr_scheduler is over before update {num_updates}, where the checkpoint is: {error}; make it longer"
        ) from error
    scheduler.load_state_dict(replayed.state_dict())


def refuse_rising_schedule(scheduler: Any, saved_limits: Any, limits: Any) -> None:
    """Refuse to prolong a run whose cosine is over: the rate would rise again.

    Raises:
        ConfigError: naming T_max.
    """
    if type(scheduler) is not torch.optim.lr_scheduler.CosineAnnealingLR:
        return
    if saved_limits != limits and scheduler.last_epoch >= scheduler.T_max:
        raise ConfigError(
            f"model.lr_scheduler.T_max is {scheduler.T_max}, and the run goes on after update {scheduler.last_epoch}, "
            "where the cosine rises again; set T_max to the number of all updates"
        )


def _class_name(class_path: Any) -> Any:
    return class_path.rpartition(".")[2] if isinstance(class_path, str) else class_path


def _shown(value: Any) -> str:
    if isinstance(value, str | Path):
        return (
            _class_name(str(value))
            if str(value).startswith(("lit_align.", "torch."))
            else str(value)
        )
    return "null" if value is None else str(value)
