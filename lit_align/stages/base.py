"""Base class of all stages: one optimizer step at a time, seeds by step, checkpoints of the trained parameters."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_align.annotators import with_hashed_annotators
from lit_align.compat.progress import number_logged_step, use_resumable_loop
from lit_align.errors import ConfigError, TrainingError
from lit_align.plugin_signatures import check_signatures
from lit_align.seeding import step_seed
from lit_align.stages.exact_step import require_whole_copies
from lit_align.stages.hparams import plain_hparams
from lit_align.stages.lr_schedulers import check_scheduler, make_on_trial, step_on_plateau
from lit_align.stages.resumption import Resumption
from lit_align.stages.schedule import Schedule, current_step, expected_steps, number_of_steps
from lit_align.stages.sharded_base import require_fitting, require_sharding
from lit_align.stages.usage import memory_in_use
from lit_align.types import Step

PARTS = ("objective", "reward", "advantage", "best_of", "embedder", "sampler")
DATA_PARTS = ("format", "feedback")
"""Attributes of a stage and of its data that hold parts of other packages."""

MAX_ROWS = 32
"""Rows of a skipped step that are named."""


class Stage(LightningModule, ABC):
    """Trains something on a frozen base; one training step is one optimizer step.

    Args:
        optimizer: the optimizer and its settings.
        lr_scheduler: a scheduler of torch, stepped after each update; null with a ``schedule``.
        max_grad_norm: gradients are clipped to this norm; 0 turns clipping off.
        max_bad_steps: stop after so many steps in a row whose loss or gradient was not finite.
        seed: of all random numbers.
        schedule: learning rate over the steps of the run; null keeps it constant.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        max_grad_norm: float,
        max_bad_steps: int,
        seed: int,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        settings = hparams = dict(self.hparams)
        if "_instantiator" not in settings:
            # Made in Python: saved as LightningCLI would, so that the checkpoint loads again.
            hparams = plain_hparams(type(self), settings)
        hparams = with_hashed_annotators(hparams)  # checkpoints and adapters go to others
        if hparams != settings:
            self.save_hyperparameters(hparams, ignore=[*settings.keys() - hparams.keys()])
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold the trained parameters, never the base
        self.optimizer = optimizer
        self.lr_scheduler, self.schedule = lr_scheduler, schedule
        if lr_scheduler is not None and schedule is not None:
            raise ConfigError(
                "model.lr_scheduler and model.schedule are both set, and each changes the learning rate; set one of "
                "them to null"
            )
        self.schedule_steps: int | None = None  # of the run, once it is set up
        self.learning_rates: list[float] = []  # of the last update, by parameter group
        self.max_grad_norm = max_grad_norm
        self.max_bad_steps = max_bad_steps
        self.seed = seed
        self.bad_steps = 0
        self.skipped = 0
        self.updates = 0
        self.resumption = Resumption(self)
        self.has_trained = False
        self._batch: Any = None  # of the step that is under way

    can_shard_base: ClassVar[bool] = False
    """Whether all processes make the same passes in a step, as a base that is divided among them needs."""

    @abstractmethod
    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trained parameters by their names in ``state_dict``."""

    @abstractmethod
    def compatibility_settings(self) -> dict[str, Any]:
        """Settings that a checkpoint must match to be loadable, as plain values."""

    @abstractmethod
    def check_data(self, data: Any) -> None:
        """Refuse a data module that the stage cannot learn from."""

    def check_before_data(self, trainer: Trainer, data: Any) -> None:
        """Refuse settings that training cannot use, as far as that is known before data and weights are loaded.

        Args:
            trainer: of the run.
            data: its data module, which may have read nothing yet.

        Raises:
            ConfigError: naming the setting.
        """
        require_whole_copies(trainer)
        require_sharding(self, trainer, data)
        parts = [getattr(self, name, None) for name in PARTS]
        parts += [getattr(data, name, None) for name in DATA_PARTS]
        check_signatures(*parts)
        make_on_trial(self)

    def setup(self, stage: str) -> None:
        """Check the data module before any weights are loaded."""
        self.check_data(self.datamodule)
        require_fitting(stage, self.trainer)
        if stage == "fit":
            use_resumable_loop(self.trainer)
            self.check_before_data(self.trainer, self.datamodule)
            self._resolve_schedule(expected_steps(self.trainer, self.datamodule))
            check_scheduler(self)
            self.resumption.compare()

    def clipping_groups(self) -> list[list[torch.nn.Parameter]]:
        """Parameters whose gradients are clipped by one norm, group by group."""
        return [list(self.trained_parameters().values())]

    def validation_names(self) -> Sequence[str]:
        """Metrics of a validation that `step_on_plateau` is given, by name."""
        return ()

    @property
    def updates_per_step(self) -> int:
        """Updates in a step, at most."""
        return 1

    @property
    def lr_names(self) -> tuple[str, ...]:
        """Names under which the learning rates of the parameter groups are logged."""
        return ("lr",)

    def saved_counters(self) -> dict[str, int]:
        """Attributes that a resumed run goes on counting, by name."""
        return {"skipped": self.skipped, "bad_steps": self.bad_steps, "updates": self.updates}

    @property
    def datamodule(self) -> Any:
        """The run's data module."""
        return cast(Any, self.trainer).datamodule

    @property
    def is_fitting(self) -> bool:
        """Whether the stage is being trained, and not only loaded, validated or tested."""
        return self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING

    @property
    def run_folder(self) -> Path:
        """The numbered folder of the run."""
        return Path(self.trainer.default_root_dir)

    def parameter_groups(self) -> list[Any]:
        """Parameter groups of the optimizer."""
        return list(self.trained_parameters().values())

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer over all trained parameters."""
        return self.optimizer(self.parameter_groups())

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule."""
        optimizer = self.make_optimizer()
        self.resumption.group_options = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        if self.lr_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_train_start(self) -> None:
        """Go on at the position of the checkpoint, if there is one."""
        self._resolve_schedule(number_of_steps(self.trainer, self.trainer.num_training_batches))
        self.resumption.start()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the step, so that a resumed run draws the same numbers without saved generator states.

        Not by epoch and batch: a run stopped after an epoch's last batch resumes within that epoch's count.
        """
        self.has_trained = True
        self._batch = batch
        number_logged_step(self.trainer)
        torch.manual_seed(step_seed(self.seed, self.global_step) * 64 + self.global_rank)
        self._started = time.perf_counter()

    def on_fit_end(self) -> None:
        """Say again how many steps were skipped."""
        if self.skipped:
            rank_zero_warn(
                f"{self.skipped} of {self.skipped + self.updates} updates were skipped, because their loss or gradient "
                "was not finite: nothing was learned from their rows; lower the learning rate or look at the rows"
            )

    def gradient_norm(self) -> Tensor:
        """The norm of the whole gradient before clipping, ``[]``, on the stage's device."""
        parameters = self.trained_parameters().values()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(gradients).to(self.device)

    def take_step(self, loss: float, norm: float) -> bool:
        """Update the parameters once from their gradients, unless loss or gradient is not finite.

        Args:
            loss: of the step.
            norm: of its gradient, see `gradient_norm`; read together with the loss, a GPU makes the host wait once.

        Returns:
            Whether the update was made.
        """
        scheduler = cast(Any, self.lr_schedulers())
        is_finite = self._check_finite(loss, norm)
        self._set_learning_rates()
        if is_finite:
            if self.max_grad_norm > 0:
                for group in self.clipping_groups():
                    torch.nn.utils.clip_grad_norm_(group, self.max_grad_norm)
            self.step_optimizer()
            self.updates += 1
            if scheduler is not None and not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
        cast(Any, self.optimizers()).zero_grad()
        return is_finite

    def step_optimizer(self) -> None:
        """Run the optimizer; Lightning counts it as one global step."""
        cast(Any, self.optimizers()).step()

    def log_rates(self) -> None:
        """Log the learning rates of the step, in double precision, and the memory in use."""
        rates = dict(zip(self.lr_names, self.learning_rates, strict=False))
        exact = {name: torch.tensor(rate, dtype=torch.float64) for name, rate in rates.items()}
        self.log_numbers({**exact, "memory_gib": memory_in_use(self.device)}, prog_bar=True)

    def log_numbers(self, numbers: Mapping[str, float | Tensor], *, prog_bar: bool = False) -> None:
        """Log numbers that the host knows; Lightning would send each of them to a GPU and read it back.

        Args:
            numbers: by name.
            prog_bar: whether the progress bar shows them.
        """
        on_host = {}
        for name, number in numbers.items():
            on_host[name] = number if isinstance(number, Tensor) else torch.tensor(float(number))
        self.log_dict(on_host, prog_bar=prog_bar)

    def step_on_plateau(self, metrics: Mapping[str, Tensor]) -> None:
        """Give a scheduler that waits for a metric the metrics of a validation."""
        if self.is_fitting:
            step_on_plateau(self.lr_schedulers(), metrics)

    def _resolve_schedule(self, num_steps: int | None) -> None:
        """Set the number of steps that the schedule is over.

        Raises:
            ConfigError: if it is not known, or the schedule does not fit in.
        """
        if self.schedule is None:
            return
        if num_steps is None:
            raise ConfigError(
                "model.schedule is over the steps of the run, and nothing limits them; set trainer.max_steps, or "
                "trainer.max_epochs if the length of an epoch is known"
            )
        self.schedule.phases(num_steps)
        self.schedule_steps = num_steps

    def _set_learning_rates(self) -> None:
        """Give each parameter group its own rate times the schedule; a pure function of the step."""
        groups = self.trainer.optimizers[0].param_groups
        if self.schedule is not None and self.schedule_steps is not None:
            step = current_step(self.trainer, self.schedule_steps)
            multiplier = self.schedule.multiplier(step, self.schedule_steps)
            for group, options in zip(groups, self.resumption.group_options, strict=True):
                group["lr"] = options["lr"] * multiplier
        self.learning_rates = [float(group["lr"]) for group in groups]

    def _check_finite(self, loss: float, norm: float) -> bool:
        """Whether the step can be taken; counts the others, and stops the run after too many in a row."""
        if math.isfinite(norm) and math.isfinite(loss):
            self.bad_steps = 0
            return True
        self.bad_steps += 1
        self.skipped += 1
        if self.skipped == 1:
            rank_zero_warn(
                f"step {self.global_step}: its loss {loss} or gradient norm {norm} is not finite, it is skipped"
                f"{_describe_rows(self._batch)}; more of them are counted in skipped_steps"
            )
        if self.bad_steps >= self.max_bad_steps:
            path = self.run_folder / "checkpoints" / "stopped.ckpt"
            self.trainer.save_checkpoint(path)
            raise TrainingError(
                f"loss {loss} and gradient norm {norm} were not finite in {self.bad_steps} steps in a row; the "
                f"state before them is in {path}; lower the learning rate or look at the rows with `lit-align inspect`"
            )
        return False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the trained parameters; the base is not part of a checkpoint."""
        trained = self.trained_parameters()
        weights = checkpoint["state_dict"].items()
        checkpoint["state_dict"] = {name: value for name, value in weights if name in trained}
        self.resumption.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counters and the position.

        Raises:
            ConfigError: if it belongs to other data or another optimizer.
            ModelError: if the checkpoint belongs to another model.
        """
        self.resumption.compare_before_weights(checkpoint)
        self.configure_model()
        self.resumption.restore(checkpoint)


def _describe_rows(batch: Any) -> str:
    """The rows of a step, as ``file:row``; nothing for data that are not text."""
    if not isinstance(batch, Step):
        return ""
    sources = [tree.group.source for tree in batch.trees]
    more = f" and {len(sources) - MAX_ROWS} more" if len(sources) > MAX_ROWS else ""
    return f" (rows {', '.join(sources[:MAX_ROWS])}{more})"
