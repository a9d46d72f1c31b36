"""Callbacks that disturb a run."""

import os
import shutil
import signal
import time
from pathlib import Path

from lightning.pytorch import Callback


class Slow(Callback):
    """Wait after every step, so that it can be interrupted.

    Args:
        seconds: how long.
    """

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *args) -> None:
        time.sleep(self.seconds)

    on_predict_batch_end = on_train_batch_end


class Terminate(Callback):
    """Ask the process to stop, as a scheduler or a shutdown does.

    Args:
        after: how many steps.
        by: the signal; SIGINT is Ctrl-C.
    """

    def __init__(self, after: int, by: str = "SIGTERM") -> None:
        self.after, self.by = after, signal.Signals[by]

    def on_train_batch_start(self, trainer, *args) -> None:
        if trainer.global_step == self.after - 1:
            os.kill(os.getpid(), self.by)


class Enough(Callback):
    """End the run as max_time and early stopping do.

    Args:
        after: how many steps.
    """

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer, *args) -> None:
        trainer.should_stop = trainer.global_step >= self.after


class TerminateEvaluation(Callback):
    """Ask the process to stop after the first batch of anything but training."""

    def on_validation_batch_end(self, *args) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end


class KillAt(Callback):
    """Send the process a signal at a hook, once so many steps are done.

    Args:
        step: how many.
        hook: name of a hook of callbacks.
        by: the signal.
    """

    def __init__(self, step: int, hook: str = "on_train_batch_start", by: str = "SIGKILL") -> None:
        self.step, self.by = step, signal.Signals[by]
        setattr(self, hook, self._signal)

    def _signal(self, trainer, *args) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.processed == self.step:
            self.step = -1
            os.kill(os.getpid(), self.by)


class CopyStates(Callback):
    """Copy the newest checkpoint and the trace into ``states/N``, N steps being done.

    The state before a step is copied after it: it is saved at the latest when the step begins.
    """

    def on_train_batch_end(self, trainer, *args) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        step = trainer.fit_loop.epoch_loop.batch_progress.total.processed - 1
        checkpoint = folder / "checkpoints" / "last.ckpt"
        if step and checkpoint.exists():
            target = folder / "states" / str(step)
            (target / "checkpoints").mkdir(parents=True)
            shutil.copy2(checkpoint, target / "checkpoints")
            shutil.copy2(folder / "metrics.csv", target)
