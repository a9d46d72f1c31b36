"""``lit-align``: what needs Lightning; ``inspect`` is our own, everything else is LightningCLI."""

from __future__ import annotations

import argparse
import logging
import os
import pkgutil
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

import lit_align.stages
from lit_align.commands import inspect
from lit_align.data.modules import AlignmentData
from lit_align.errors import AmbiguousName, ConfigError, LitAlignError, UnknownName
from lit_align.explain import explain
from lit_align.plugins import load_plugins
from lit_align.stages.answers import AnswerWriter
from lit_align.stages.base import AlignmentModule
from lit_align.stages.checkpoints import LastCheckpoint, SafeIO
from lit_align.stages.report import Report

# What Lightning says of things that are as they should be here.
HARMLESS = (
    "LightningCLI's args parameter is intended to run from within Python.*",
    ".*`weights_only` was not set.*",
    ".*does not have many workers.*",
    ".*Couldn't infer the batch indices.*",
    ".*module\\(s\\) in eval mode at the start of training.*",
    ".*Total length of `list` across ranks is zero.*",
    ".*Experiment logs directory.*exists and is not empty.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
    ".*is_gradient_checkpointing.*",
    ".*`log_every_n_steps`.*larger than.*|.*is smaller than the logging interval.*",
)


class LitAlignCLI(LightningCLI):
    """LightningCLI with a folder for each run, whole checkpoints, and a report at the end."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what concerns the run as a whole."""
        parser.add_argument(
            "--run", type=str, default="runs/default", help="Folder of runs; each one gets a number in it."
        )
        parser.add_argument("--save_every", type=int, default=50, help="Steps between checkpoints of the newest state.")

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder, and refuse what would be ignored or done twice."""
        config = self.config[str(self.subcommand)]
        _refuse(config)
        self.folder = _folder(Path(config.run))
        if config.trainer.logger in (None, True):
            here = {"save_dir": str(self.folder), "name": "", "version": ""}
            options: tuple[dict[str, Any], ...] = ({"flush_logs_every_n_steps": 1}, {"default_hp_metric": False})
            self.loggers = [
                cls(**here, **more) for cls, more in zip((CSVLogger, TensorBoardLogger), options, strict=True)
            ]

    def instantiate_classes(self) -> None:
        """Make the stage, the data and the trainer; what a class says against its settings is a mistake in them."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise ConfigError(explain(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add loggers, checkpoints and the report to what the YAML asks for."""
        config = self.config_init[str(self.subcommand)]
        asked = config.trainer.callbacks or []
        asked = asked if isinstance(asked, list) else [asked]
        extra = [LastCheckpoint(config.save_every), AnswerWriter()]
        extra += [] if any(isinstance(callback, Report) for callback in asked) else [Report()]
        extra += [RichProgressBar()] if config.trainer.enable_progress_bar is not False else []
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": extra}
        given = config.trainer.plugins or []
        kwargs["plugins"] = [*(given if isinstance(given, list) else [given]), SafeIO()]
        if config.trainer.logger in (None, True):
            kwargs["logger"] = self.loggers
        try:
            return super().instantiate_trainer(default_root_dir=str(self.folder), **kwargs)
        except (MisconfigurationException, TypeError) as error:
            raise ConfigError(f"{str(error).rstrip('.!')}; change it under trainer") from error

    def _parse_ckpt_path(self) -> None:
        # Lightning would put the checkpoint's settings over those of the YAML, without a word; here what is written
        # holds, and a checkpoint that does not fit is refused
        pass

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # nothing in a checkpoint is executed, whoever made it
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    def before_fit(self) -> None:
        """Say what is about to happen, as it was understood."""
        _say(f"{type(self.model).__name__} · {self.model.objective!r} · {self.model.base.path}")


class _Parsed(LitAlignCLI):
    """Everything up to the run itself."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


def _refuse(config: Namespace) -> None:
    if config.trainer.accumulate_grad_batches != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches is {config.trainer.accumulate_grad_batches}; leave it out: "
            "data.batch_size is what one step learns from, and data.token_budget splits it into what fits in memory"
        )
    if config.trainer.gradient_clip_val is not None:
        raise ConfigError(
            f"trainer.gradient_clip_val is {config.trainer.gradient_clip_val}; set max_grad_norm of the model instead, "
            "which clips the gradient of the whole step"
        )
    # The others convert the adapter and the base's buffers (an update then vanishes in rounding), or scale gradients
    # of which the norm is taken here.
    if str(config.trainer.precision) not in ("None", "32", "32-true", "bf16", "bf16-mixed"):
        raise ConfigError(
            f"trainer.precision is {config.trainer.precision}; leave it out: model.base.dtype is what is computed in, "
            "and the adapter is kept in float32"
        )


def _folder(runs: Path) -> Path:
    """A fresh folder for this run; processes that it starts share it."""
    if "LOCAL_RANK" in os.environ and "LIT_ALIGN_RUN" in os.environ:
        return Path(os.environ["LIT_ALIGN_RUN"])
    taken = [int(path.name) for path in runs.glob("*") if path.name.isdigit()]
    folder = runs / str(max(taken, default=-1) + 1)
    os.environ["LIT_ALIGN_RUN"] = str(folder)
    return folder


def main(args: list[str] | None = None) -> None:
    """Run ``lit-align`` with ``args``; exits with 2 for a mistake in the settings and 143 after SIGTERM.

    Raises:
        SystemExit: with a sentence that says what is wrong and how to go on.
    """
    args = sys.argv[1:] if args is None else args
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)
    for name in ("pytorch.utilities", "fabric.utilities"):  # what a service has to offer is not about this run
        logging.getLogger(f"lightning.{name}.rank_zero").addFilter(
            lambda record: "litlogger" not in record.getMessage()
        )
    set_parsing_settings(import_path_allowlist=[])  # enforces the denylist: a YAML may not name os, subprocess or eval
    try:
        load_plugins()
        for stage in pkgutil.iter_modules(lit_align.stages.__path__, "lit_align.stages."):
            import_module(stage.name)  # so that the YAML finds them by name
        if args[:1] == ["inspect"]:
            parsed = _cli(_Parsed, ["fit", *args[1:]])
            inspect.run(parsed.model, parsed.datamodule)
        else:
            _cli(LitAlignCLI, args)
    except (ArgumentError, argparse.ArgumentError) as error:
        print(f"lit-align: {explain(str(error))}", file=sys.stderr)
        sys.exit(2)
    except LitAlignError as error:
        print(f"lit-align: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError | UnknownName | AmbiguousName) else 1)
    except SIGTERMException:
        sys.exit(143)  # Lightning alone would exit with 0


def _cli(cls: type[LitAlignCLI], args: list[str]) -> LitAlignCLI:
    quiet = {"exit_on_error": False}  # so that the message can be explained instead of printed under the whole usage
    return cls(
        AlignmentModule,
        AlignmentData,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        trainer_defaults={"max_epochs": 1, "enable_model_summary": False, "num_sanity_val_steps": 0},
        seed_everything_default=1,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={**quiet, **dict.fromkeys(("fit", "validate", "test", "predict"), quiet)},
        args=args,
    )
