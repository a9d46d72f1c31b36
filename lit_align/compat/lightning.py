"""Private interfaces of Lightning 2.6, one function each; tests/compat fails when Lightning changes them."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar


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
    """A progress bar that counts epochs from 1, and shows small numbers such as learning rates."""

    def _get_train_description(self, current_epoch: int) -> str:
        """The epoch, of how many if they are limited; padded as Lightning's."""
        max_epochs = self.trainer.max_epochs
        total = "" if max_epochs in (None, -1) else f"/{max_epochs}"
        return f"Epoch {current_epoch + 1}{total}".ljust(len(self.validation_description))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The metrics of the bar as they are shown."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)  # the number of the run by a logger
        return {name: format_number(value) for name, value in metrics.items()}


def steps_bar() -> ProgressBar:
    """The bar of training: in a Jupyter kernel tqdm's, for a line break that is printed beside rich's ends it there.

    rich 15.0 writes what is printed through display(), before which ipykernel 7.4 flushes what is printed: without end.
    """
    import rich

    return TQDMProgressBar() if rich.get_console().is_jupyter else StepsProgressBar()


def format_number(value: Any) -> Any:
    """A float in at most four significant digits, without an exponent if it is large; anything else as it is.

    Example:
        >>> [format_number(value) for value in (0.69314, 5e-06, 12345.678, 7, "3")]
        ['0.6931', '5e-06', '12346', 7, '3']
    """
    if not isinstance(value, float):
        return value
    return f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def set_root_dir(trainer: Trainer, folder: str) -> None:
    """Change ``trainer.default_root_dir``, which Lightning sets only when the trainer is made.

    Processes of a launcher such as torchrun can agree on a folder only once they are connected, which is later.
    """
    trainer._default_root_dir = folder  # type: ignore[attr-defined]
