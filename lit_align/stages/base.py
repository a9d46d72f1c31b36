"""What all training shares, of text or not: one optimiser step, seeds by step, checkpoints of what was trained."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_align.errors import ModelError, TrainingError
from lit_align.seeding import step_seed
from lit_align.stages.checkpoints import reopen
from lit_align.stages.hparams import differences, written


class Stage(LightningModule, ABC):
    """Something to train on a frozen base; one training step is one optimiser step.

    Args:
        optimizer: the optimiser and its settings.
        lr_scheduler: the schedule, stepped after each optimiser step.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them alone.
        max_bad_steps: stop after so many steps in a row whose loss or gradient was not finite.
        seed: of all that is drawn.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        max_grad_norm: float,
        max_bad_steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if (
            "_instantiator" not in self.hparams
        ):  # made in Python: noted as LightningCLI would, so that it loads again
            given = dict(self.hparams)
            kept = written(type(self), given)
            self.save_hyperparameters(kept, ignore=[*given.keys() - kept.keys()])
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold what was trained, never the base
        self.optimizer, self.lr_scheduler, self.max_grad_norm = (
            optimizer,
            lr_scheduler,
            max_grad_norm,
        )
        self.max_bad_steps, self.seed = max_bad_steps, seed
        self.bad_steps = self.skipped = 0

    @abstractmethod
    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by its name in ``state_dict``."""

    @abstractmethod
    def compatibility_settings(self) -> dict[str, Any]:
        """What the trained weights mean nothing without, as plain values."""

    @abstractmethod
    def check_data(self, data: Any) -> None:
        """Refuse data that it cannot learn from."""

    def setup(self, stage: str) -> None:
        """Refuse such data before any weights are loaded."""
        self.check_data(self.datamodule)

    def clipping_groups(self) -> list[list[torch.nn.Parameter]]:
        """Parameters whose gradient is scaled down together."""
        return [list(self.trained_parameters().values())]

    def saved_counters(self) -> dict[str, int]:
        """Attributes that go on counting when a run is resumed."""
        return {"skipped": self.skipped}

    @property
    def datamodule(self) -> Any:
        """The run's data module."""
        return cast(Any, self.trainer).datamodule

    def parameter_groups(self) -> list[Any]:
        """What the optimiser moves, in groups where their settings differ."""
        return list(self.trained_parameters().values())

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser, over all that is trained."""
        return self.optimizer(self.parameter_groups())

    def configure_optimizers(self) -> Any:
        """One optimiser over what is trained, and its schedule."""
        optimizer = self.make_optimizer()
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"},
        }

    def on_train_start(self) -> None:
        """Begin a new epoch where the old one was complete: with max_steps Lightning would run it again, empty."""
        loop = cast(Any, self.trainer).fit_loop
        epoch = loop.epoch_progress.current
        if loop.epoch_loop.restarted_on_last and epoch.processed == epoch.started:
            loop.epoch_loop.restarting = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the step: a resumed run draws what the uninterrupted one did, with no saved state.

        Not by epoch and batch: a run stopped after an epoch's last batch resumes within that epoch's count.
        """
        torch.manual_seed(step_seed(self.seed, self.global_step) * 64 + self.global_rank)
        self._started = time.perf_counter()

    def take_step(self, loss: float) -> tuple[Tensor, bool]:
        """Update once from the gradients that are there; their norm, and whether they were finite and so taken."""
        optimizer, scheduler = cast(Any, self.optimizers()), cast(Any, self.lr_schedulers())
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.trained_parameters().values() if p.grad is not None]
        )
        if taken := self._finite(loss, norm):
            for group in self.clipping_groups() if self.max_grad_norm > 0 else ():
                torch.nn.utils.clip_grad_norm_(group, self.max_grad_norm)
            self.step_optimizer()
            if scheduler is not None:
                scheduler.step()
        optimizer.zero_grad()
        return norm, taken

    def step_optimizer(self) -> None:
        """Run the optimizer; Lightning counts it as one global step."""
        cast(Any, self.optimizers()).step()

    def _finite(self, loss: float, norm: Tensor) -> bool:
        """Whether this step may be taken; counts those that may not, and stops the run after too many in a row."""
        if bool(torch.isfinite(norm)) and abs(loss) < float("inf"):
            self.bad_steps = 0
            return True
        self.bad_steps += 1
        self.skipped += 1
        if self.bad_steps >= self.max_bad_steps:
            path = Path(self.trainer.default_root_dir) / "checkpoints" / "stopped.ckpt"
            self.trainer.save_checkpoint(path)
            raise TrainingError(
                f"loss {loss} and gradient norm {norm.item()} were not finite in {self.bad_steps} steps in a row; the "
                f"state before them is in {path}; lower the learning rate or look at the rows with `lit-align inspect`"
            )
        return False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what was trained; the base stays where it came from."""
        keep = self.trained_parameters()
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name in keep
        }
        checkpoint["origin"], checkpoint["counts"] = (
            self.compatibility_settings(),
            self.saved_counters(),
        )
        reopen(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model: its weights would be lacking, or mean something else here."""
        self.configure_model()
        differ = differences(self.compatibility_settings(), checkpoint.get("origin", {}))
        here = {name: weight.shape for name, weight in self.trained_parameters().items()}
        there = {name: weight.shape for name, weight in checkpoint["state_dict"].items()}
        if here != there:
            wrong = sorted(name for name in {**here, **there} if here.get(name) != there.get(name))
            differ.append(f"{len(wrong)} parameters differ, such as {wrong[0]}")
        if differ:
            raise ModelError(
                f"the checkpoint does not fit this adapter: {', '.join(differ)}; "
                "use the settings of the run that wrote it (config.yaml beside it)"
            )
        for name, value in checkpoint.get("counts", {}).items():
            setattr(self, name, value)
