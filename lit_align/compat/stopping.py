"""Stop a run in the middle of something long that changes no state, such as sampling, once it is told to stop."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

_trainers: list[Trainer] = []


def watch(trainer: Trainer | None) -> None:
    """Let the signals of this trainer stop what calls `stop_if_told`; None watches no trainer.

    Several processes stop together between two steps, since none may leave the others waiting.
    """
    _trainers.clear()
    if trainer is not None and trainer.world_size == 1:
        _trainers.append(trainer)


def stop_if_told() -> None:
    """End the run if SIGTERM or Ctrl-C has come.

    Raises:
        SIGTERMException: if so; the state before the step is then saved.
    """
    for trainer in _trainers:
        if trainer.received_sigterm:
            raise SIGTERMException
