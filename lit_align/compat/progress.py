"""Progress of a run: one position, from which all of Lightning's counters in a checkpoint are derived.

Lightning counts epochs, batches and validations apart, and a checkpoint may be saved between two of these counts. Here
the number of batches that are done is the only truth; private interfaces of Lightning 2.6, tested in tests/compat.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop

Counters = dict[str, dict[str, int]]
"""Lightning's counts of events of one kind: in ``total``, and in the ``current`` epoch."""


class Position(NamedTuple):
    """How far a run is, between two steps.

    Args:
        epochs: complete epochs.
        batches: batches of the next epoch that are done; all of them if only the validation after them is missing.
        epoch_length: batches in an epoch.
        validation_due: whether the validation after the last of these batches is not done yet.
    """

    epochs: int
    batches: int
    epoch_length: int
    validation_due: bool = False

    @property
    def total_batches(self) -> int:
        """Batches of all epochs that are done."""
        return self.epochs * self.epoch_length + self.batches


def position_after(total_batches: int, epoch_length: int, validation_due: bool = False) -> Position:
    """The position after so many batches.

    Example:
        >>> position_after(7, 3)
        Position(epochs=2, batches=1, epoch_length=3, validation_due=False)
        >>> position_after(6, 3, validation_due=True)
        Position(epochs=1, batches=3, epoch_length=3, validation_due=True)
    """
    epochs, batches = divmod(total_batches, epoch_length)
    if validation_due and batches == 0:
        epochs, batches = epochs - 1, epoch_length
    return Position(epochs, batches, epoch_length, validation_due)


def loop_counters(position: Position, global_step: int) -> dict[str, Any]:
    """Entries of ``checkpoint["loops"]["fit_loop"]`` with which Lightning goes on at a position.

    Where a validation is due, they say that it was interrupted, so that Lightning runs it first. Elsewhere within an
    epoch they say that the last batch is about to end, which is where Lightning expects a checkpoint.
    """
    epochs, batches, total = position.epochs, position.batches, position.total_batches
    is_inside = batches > 0
    is_ending = is_inside and not position.validation_due
    started_epochs = epochs + is_inside
    num_validations = int(position.validation_due)
    epoch_progress = _counters(started_epochs, epochs, epochs)
    batch_progress: dict[str, Any] = {
        "total": _counts(total, total, total - is_ending),
        "current": _counts(batches, batches, batches - is_ending),
        "is_last_batch": batches == position.epoch_length,
    }
    validation_progress: dict[str, Any] = {
        **_counters(num_validations, 0, 0),
        "is_last_batch": False,
    }
    steps = {"ready": global_step, "completed": global_step}
    return {
        "epoch_progress": epoch_progress,
        "epoch_loop.batch_progress": batch_progress,
        "epoch_loop.val_loop.batch_progress": validation_progress,
        "epoch_loop.manual_optimization.optim_step_progress": {"total": steps, "current": steps},
        # Lightning adds 1 when it ends the batch, or the validation after it
        "epoch_loop.state_dict": {"_batches_that_stepped": total - is_inside},
    }


def current_position(trainer: Trainer) -> Position | None:
    """The position of a run: the steps that are done count, one that is under way does not.

    None if the length of an epoch is not known. Reads ``batch_progress`` of the epoch loop and its validation loop.
    """
    epoch_length = trainer.num_training_batches
    if epoch_length in (0, float("inf")):
        return None
    batches = _totals(trainer.fit_loop.epoch_loop.batch_progress).processed
    return position_after(batches, int(epoch_length), _is_validation_due(trainer))


def save_position(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Put the position of the run into a checkpoint, and derive Lightning's counters in it from the position."""
    position = current_position(trainer)
    if position is None:
        return
    checkpoint["position"] = position._asdict()
    checkpoint["epoch"] = position.epochs
    checkpoint["loops"]["fit_loop"].update(loop_counters(position, trainer.global_step))


class ResumableFitLoop(_FitLoop):
    """Finishes a run that was killed after its last step: Lightning skips all that follows the step.

    That is the validation after the step, and the hooks at the end of training, which write what the run leaves.
    """

    @property
    def skip(self) -> bool:
        """Whether there is nothing to do: never in a run that is resumed."""
        return not self.is_resuming and bool(super().skip)

    @property
    def done(self) -> bool:
        """Whether to leave the loop: not before an interrupted validation is run again."""
        validations = _totals(self.epoch_loop.val_loop.batch_progress)
        is_interrupted = self.restarting and validations.processed < validations.started
        return not is_interrupted and bool(super().done)


def use_resumable_loop(trainer: Trainer) -> None:
    """Exchange the trainer's fit loop for one that finishes what a killed run left; call it before ``fit`` starts."""
    loop = trainer.fit_loop
    if not isinstance(loop, ResumableFitLoop):
        trainer.fit_loop = ResumableFitLoop(trainer)
        vars(trainer.fit_loop).update(vars(loop))  # its limits, data and inner loops


def begin_epoch(trainer: Trainer) -> None:
    """Let a run that resumes between two epochs begin the next one; call it in ``on_train_start``.

    With ``max_steps`` Lightning would otherwise run the complete epoch again, without batches.
    """
    cast(Any, trainer).fit_loop.epoch_loop.restarting = False


def number_logged_step(trainer: Trainer) -> None:
    """Log the step that begins under the number of batches before it, which Lightning counts once more elsewhere."""
    epoch_loop = trainer.fit_loop.epoch_loop
    epoch_loop._batches_that_stepped = epoch_loop.batch_progress.total.ready - 1


def _totals(progress: Any) -> Any:
    """Counts over all epochs; Lightning declares fewer kinds of them than it keeps."""
    return progress.total


def _is_validation_due(trainer: Trainer) -> bool:
    """Whether a validation should follow the last batch, and has not been completed."""
    fit_loop = trainer.fit_loop
    epoch_loop = fit_loop.epoch_loop
    if trainer.validating:
        num_done = epoch_loop.val_loop.batch_progress.current.completed
        return num_done < sum(epoch_loop.val_loop.max_batches)
    batches = _totals(epoch_loop.batch_progress)
    is_ending_batch = batches.completed < batches.processed
    if not is_ending_batch or fit_loop._data_fetcher is None:
        return False
    return bool(epoch_loop._should_check_val_fx(fit_loop._data_fetcher))


def _counts(started: int, processed: int, completed: int) -> dict[str, int]:
    return {
        "ready": started,
        "started": started,
        "processed": processed,
        "completed": completed,
    }


def _counters(started: int, processed: int, completed: int) -> Counters:
    """The same counts in total and in the current epoch."""
    counts = _counts(started, processed, completed)
    return {"total": counts, "current": dict(counts)}
