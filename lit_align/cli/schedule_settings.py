"""Refuse ways to write a schedule that come from other libraries or cannot work, and say how it is written here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from lit_align.cli.sources import read_sources
from lit_align.errors import ConfigError
from lit_align.functional.lr_schedule import Shape
from lit_align.renamed_settings import flatten_block

SHAPES = {
    **{shape: shape for shape in get_args(Shape)},
    "constant_with_warmup": "constant",
    "cosine_with_min_lr": "cosine",
    "warmup_stable_decay": "wsd",
}
"""Names of schedules in transformers, and the shape here."""

EXAMPLE = "schedule: {shape: cosine, warmup: 0.05, floor: 0.1}"
OF_SCHEDULERS = ("SequentialLR", "ChainedScheduler")
PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"
KEYS = {
    "lr_scheduler_type": "schedule.shape",
    "lr_scheduler_kwargs": "schedule.floor or schedule.decay",
    "warmup_ratio": "schedule.warmup, as a share",
    "warmup_steps": "schedule.warmup, as a number of steps",
}
"""Settings of TRL, and where they are here."""


def refuse_schedules(arguments: Sequence[str]) -> None:
    """Look through the model's settings in files and options.

    Args:
        arguments: of the command line.

    Raises:
        ConfigError: with the setting to write instead.
    """
    for _, settings in read_sources(arguments):
        model = settings.get("model")
        for key, value in flatten_block(model) if isinstance(model, dict) else ():
            sentence = describe_refusal(key, value)
            if sentence:
                raise ConfigError(sentence)


def describe_refusal(key: str, value: Any) -> str | None:
    """Why a setting of the model cannot be its schedule, and what to write; None for all other settings.

    Example:
        >>> describe_refusal("lr_scheduler", "warmup_stable_decay")
        "model.lr_scheduler is 'warmup_stable_decay', and takes a class of torch; write schedule: {shape: wsd} instead"
    """
    if key in KEYS:
        return f"model has no {key}; set {KEYS[key]}, as in {EXAMPLE}"
    name = value.get("class_path", "") if isinstance(value, dict) else value
    if not isinstance(name, str):
        return None
    if key == "schedule" and name and name not in ("null", "{}"):
        return f"model.schedule is {name!r}; write schedule: {{shape: {SHAPES.get(name, name)}}}"
    if key != "lr_scheduler":
        return None
    module, _, short_name = name.rpartition(".")
    if name in SHAPES:
        return (
            f"model.lr_scheduler is {name!r}, and takes a class of torch; write schedule: {{shape: {SHAPES[name]}}} "
            "instead"
        )
    if module.partition(".")[0] == "transformers":
        return (
            f"model.lr_scheduler is {name}, and takes a class of torch; write {EXAMPLE} instead, which has the values "
            "of transformers"
        )
    if short_name in OF_SCHEDULERS:
        return (
            f"model.lr_scheduler is {short_name}, which is made of other schedulers, and settings cannot make these; "
            f"write {EXAMPLE} instead"
        )
    if short_name == "ReduceLROnPlateau" and name != PLATEAU:
        return (
            f"model.lr_scheduler is {name}, which names no metric; write {PLATEAU} and its monitor"
        )
    return None
