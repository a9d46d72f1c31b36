"""Callbacks that disturb a run."""

import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint

from lit_align.callbacks.report import Report


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
        rank: the process of several that gets it; -1 for each of them.
    """

    def __init__(
        self,
        step: int,
        hook: str = "on_train_batch_start",
        by: str = "SIGKILL",
        rank: int = -1,
    ) -> None:
        self.step, self.by, self.rank = step, signal.Signals[by], rank
        setattr(self, hook, self._signal)

    def _signal(self, trainer, *args) -> None:
        if self.rank not in (-1, trainer.global_rank):
            return
        if trainer.fit_loop.epoch_loop.batch_progress.total.processed == self.step:
            self.step = -1
            os.kill(os.getpid(), self.by)


class CutOff(Callback):
    """Take a process's network away, once so many steps are done.

    Args:
        step: how many.
        rank: the process.
        interface: of its network.
    """

    def __init__(self, step: int, rank: int, interface: str) -> None:
        self.step, self.rank, self.interface = step, rank, interface

    def on_train_batch_start(self, trainer, *args) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        if (done, trainer.global_rank) == (self.step, self.rank):
            subprocess.run(["ip", "link", "set", self.interface, "down"], check=True)


class CopyStates(Callback):
    """Copy the newest checkpoint and the trace into ``states/N``, N steps being done.

    The state before a step is copied after it: it is saved at the latest when the step begins. That after the last step
    is copied before the state at the end of the run replaces it.
    """

    def on_train_batch_end(self, trainer, *args) -> None:
        self._copy(trainer, trainer.fit_loop.epoch_loop.batch_progress.total.processed - 1)

    def on_train_end(self, trainer, *args) -> None:
        self._copy(trainer, trainer.fit_loop.epoch_loop.batch_progress.total.processed)

    def _copy(self, trainer, step) -> None:
        folder = Path(trainer.default_root_dir)
        checkpoint = folder / "checkpoints" / "last.ckpt"
        if step and trainer.is_global_zero and checkpoint.exists():
            target = folder / "states" / str(step)
            (target / "checkpoints").mkdir(parents=True)
            shutil.copy2(checkpoint, target / "checkpoints")
            shutil.copy2(folder / "metrics.csv", target)


class FillDisk(Checkpoint):
    """Fill the disk of the run at a hook, once so many steps are done.

    As a callback for checkpoints it is called after the one that saves them.

    Args:
        step: how many.
        free: bytes that stay free.
        hook: name of a hook of callbacks.
    """

    def __init__(self, step: int, free: int, hook: str = "on_train_batch_start") -> None:
        self.step, self.free = step, free
        setattr(self, hook, self._fill)

    def _fill(self, trainer, *args) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.processed != self.step:
            return
        self.step = -1
        runs = Path(trainer.default_root_dir).parent
        with (runs / "filler").open("wb", buffering=0) as file:
            file.write(bytes(max(0, shutil.disk_usage(runs).free - self.free)))


class MakeImmutable(Callback):
    """Let the folder of checkpoints refuse every change, once so many steps are done; root may not change it either.

    Args:
        step: how many.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            folder = Path(trainer.default_root_dir) / "checkpoints"
            subprocess.run(["chattr", "+i", folder], check=True)


class TurnClock(Callback):
    """Let the clock of the system jump after every step, backwards and forwards; needs libfaketime.

    Args:
        file: that libfaketime reads the time's offset from.
        days: offset after each step, in turn.
    """

    def __init__(self, file: str, days: list[int]) -> None:
        self.file, self.days = Path(file), days

    def on_train_batch_end(self, trainer, *args) -> None:
        days = self.days[trainer.global_step % len(self.days)]
        self.file.write_text(f"{days:+d}d\n")
        # the clock that the next step reads has jumped, or this drill shows nothing
        with (self.file.parent / "clock.txt").open("a") as file:
            file.write(f"{time.time()}\n")


class Measure(Callback):
    """Write resident memory and open descriptors of the process to a file, and end the run after some minutes.

    Args:
        file: CSV of seconds, step, MiB and descriptors.
        minutes: how long the run goes on.
        seconds: between two measurements.
    """

    def __init__(self, file: str, minutes: float, seconds: float = 5.0) -> None:
        self.file, self.minutes, self.seconds = Path(file), minutes, seconds
        self.begin, self.last = time.monotonic(), 0.0

    def on_train_batch_end(self, trainer, *args) -> None:
        elapsed = time.monotonic() - self.begin
        trainer.should_stop = trainer.should_stop or elapsed > 60 * self.minutes
        if elapsed - self.last < self.seconds:
            return
        self.last = elapsed
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        descriptors = len(os.listdir("/proc/self/fd"))
        with self.file.open("a") as file:
            file.write(f"{elapsed:.1f},{trainer.global_step},{memory:.2f},{descriptors}\n")


class LimitedReport(Report):
    """A report at whose time the system refuses large files."""

    def on_train_end(self, *args) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        super().on_train_end(*args)
