"""The learning-rate schedule of a run: settings as shares of its steps, resolved once their number is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer

from lit_align.checks import check_at_least, check_fraction
from lit_align.errors import ConfigError
from lit_align.functional.lr_schedule import Shape, lr_multiplier

WSD_DECAY = 0.1  # share of the steps


@dataclass(frozen=True)
class Schedule:
    """Learning rate over the steps of a run, as multiples of the optimizer's ``lr``.

    Values equal those of transformers' schedules of the same names at each step; the first step of a warmup has rate 0.

    Args:
        shape: ``constant``, ``linear`` or ``cosine`` after the warmup, or ``wsd``: constant, then a cosine decay.
        warmup: steps over which the rate rises to ``lr``; below 1 a share of the steps of the run.
        decay: steps of the final decay of ``wsd``; below 1 a share. Null is 0.1.
        floor: what the rate falls to at the end of the run, as a share of ``lr``.

    Raises:
        ConfigError: if a setting has no meaning for the shape.
    """

    shape: Shape = "constant"
    warmup: int | float = 0
    decay: int | float | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_steps("schedule.warmup", self.warmup)
        check_fraction("schedule.floor", self.floor)
        if self.decay is not None:
            _check_steps("schedule.decay", self.decay)
        if self.decay is not None and self.shape != "wsd":
            raise ConfigError(
                f"schedule.decay is {self.decay}, and only the shape wsd has one; leave it out, or set shape to wsd"
            )
        if self.floor and self.shape == "constant":
            raise ConfigError(
                f"schedule.floor is {self.floor}, and the shape constant does not fall; leave it out, or set another "
                "shape"
            )

    def phases(self, num_steps: int) -> tuple[int, int]:
        """Steps of the warmup and of the decay of ``wsd``; shares are rounded up where there is room.

        Raises:
            ConfigError: if they are longer than the run.

        Example:
            >>> Schedule("wsd", warmup=0.05, decay=20).phases(num_steps=110)
            (6, 20)
        """
        decay = WSD_DECAY if self.decay is None else self.decay
        num_warmup = _resolve(self.warmup, num_steps)
        num_decay = _resolve(decay, num_steps) if self.shape == "wsd" else 0
        if num_warmup + num_decay == num_steps + 1:  # rounded up too far
            if num_decay and decay < 1:
                num_decay -= 1
            elif self.warmup < 1:
                num_warmup -= 1
        if num_warmup + num_decay > num_steps:
            parts = f"schedule.warmup is {num_warmup}"
            if num_decay:
                parts += f" and schedule.decay {num_decay}"
            raise ConfigError(
                f"{parts} steps, and the run has {num_steps}; shorten it, write shares such as 0.1, or raise "
                "trainer.max_steps or trainer.max_epochs"
            )
        return num_warmup, num_decay

    def multiplier(self, step: int, num_steps: int) -> float:
        """What the learning rate is multiplied by in a step, counted from 0.

        Example:
            >>> schedule = Schedule("cosine", warmup=0.25, floor=0.1)
            >>> [round(schedule.multiplier(step, num_steps=4), 3) for step in range(5)]
            [0.0, 1.0, 0.775, 0.325, 0.1]
        """
        num_warmup, num_decay = self.phases(num_steps)
        return lr_multiplier(step, self.shape, num_steps, num_warmup, num_decay, self.floor)


def number_of_steps(trainer: Trainer, epoch_length: float) -> int | None:
    """Steps of a run whose epochs have so many, by the limits of the trainer; None if they do not end it.

    Args:
        trainer: with its ``max_steps`` and ``max_epochs``.
        epoch_length: steps of an epoch; infinity if it is not known.
    """
    limits = []
    if trainer.max_steps != -1:
        limits.append(float(trainer.max_steps))
    if trainer.max_epochs not in (None, -1):
        limits.append(float(trainer.max_epochs or 0) * epoch_length)
    num_steps = min(limits, default=math.inf)
    return int(num_steps) if math.isfinite(num_steps) else None


def expected_steps(trainer: Trainer, data: Any) -> int | None:
    """Steps of a run before its model is loaded; None if nothing limits them."""
    try:
        if hasattr(data, "steps_per_epoch"):  # whose loader needs the model
            length: float = data.steps_per_epoch()
        else:
            length = len(data.train_dataloader())
    except TypeError:  # an iterable without a length
        length = math.inf
    limit = trainer.limit_train_batches
    length = min(length, limit) if isinstance(limit, int) else length * limit
    return number_of_steps(trainer, length if math.isinf(length) else int(length))


def current_step(trainer: Trainer, num_steps: int) -> int:
    """Steps of a run before the present one.

    In a run that ``max_steps`` ends, these are those with an update, as Lightning counts them. In a run that its epochs
    end, also those that were empty or skipped: the schedule is over when the epochs are.
    """
    if num_steps == trainer.max_steps:
        return trainer.global_step
    return trainer.fit_loop.total_batch_idx


def _check_steps(name: str, value: float) -> None:
    check_at_least(name, value, 0)
    if value >= 1 and not float(value).is_integer():
        raise ConfigError(
            f"{name} is {value}; it is a number of steps, such as 100, or a share of them below 1, such as 0.05"
        )


def _resolve(value: float, num_steps: int) -> int:
    return int(value) if value >= 1 else math.ceil(value * num_steps)
