"""Private interfaces of Lightning 2.6, one function each; tests/compat fails when Lightning changes them."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


def is_logging_step(trainer: Trainer) -> bool:
    """Whether what is logged in the current training step reaches the loggers.

    Equals ``trainer._logger_connector.should_update_logs``, also in a resumed run, from public attributes alone.
    """
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if every == 0:
        return False
    return bool((trainer.fit_loop.total_batch_idx + 1) % every == 0 or trainer.should_stop)


def step_optimizer_uncounted(module: LightningModule) -> None:
    """Run the optimizer with the precision plugin and hooks of the trainer, without counting a global step.

    Args:
        module: a module with manual optimization and one optimizer, inside its training step.
    """
    optimizer: Any = module.optimizers(use_pl_optimizer=False)
    module.trainer.strategy.optimizer_step(optimizer, _no_closure)


def count_global_step(trainer: Trainer) -> None:
    """Count one global step, as Lightning does after a step of a wrapped optimizer."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    progress.increment_ready()
    progress.increment_completed()


def _no_closure() -> None:
    """The gradients are already there."""


class StepsProgressBar(RichProgressBar):
    """A progress bar that does not count epochs to -2 where steps are limited and epochs are not."""

    def _get_train_description(self, current_epoch: int) -> str:
        return super()._get_train_description(current_epoch).replace("/-2", "")


def set_root_dir(trainer: Trainer, folder: str) -> None:
    """Change ``trainer.default_root_dir``, which Lightning sets only when the trainer is made.

    Processes of a launcher such as torchrun can agree on a folder only once they are connected, which is later.
    """
    trainer._default_root_dir = folder  # type: ignore[attr-defined]
