"""Stop a run in the middle of something long that changes no state, such as sampling, once it is told to stop."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_trainers: list[Trainer] = []
_received: list[int] = []  # signals that this process of several has got


def watch(trainer: Trainer | None) -> None:
    """Let the signals of this trainer stop what calls `stop_if_told`; None watches no trainer.

    Several processes stop together between two steps, since none may leave the others waiting.
    """
    _trainers.clear()
    if trainer is not None and trainer.world_size == 1:
        _trainers.append(trainer)


def stop_together(trainer: Trainer) -> None:
    """Only note SIGTERM in each of several processes, until `agree_to_stop`; call it when training starts.

    Lightning's handler waits for the other processes within the signal, while they wait for this one in their step.
    """
    _received.clear()
    if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: _received.append(number))


def agree_to_stop(trainer: Trainer) -> None:
    """Let Lightning stop all processes after this step, if one of them got SIGTERM; each of them must call this."""
    if trainer.world_size == 1:
        return
    if trainer.strategy.reduce_boolean_decision(bool(_received), all=False):
        trainer._signal_connector.received_sigterm = True


def stop_if_told() -> None:
    """End the run if SIGTERM or Ctrl-C has come.

    Raises:
        SIGTERMException: if so; the state before the step is then saved.
    """
    for trainer in _trainers:
        if trainer.received_sigterm:
            from lightning.pytorch.utilities.exceptions import SIGTERMException

            raise SIGTERMException
