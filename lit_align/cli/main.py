"""``lit-align``: what needs Lightning; inspect, judge and evaluate are our own, the rest is LightningCLI."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_align.callbacks.last_checkpoint import LastCheckpoint
from lit_align.callbacks.predictions import PredictionWriter
from lit_align.callbacks.report import Report
from lit_align.cli import evaluate, inspect, judge
from lit_align.cli.classes import import_settings_classes
from lit_align.cli.error_messages import explain
from lit_align.cli.objective_switch import refuse_inherited
from lit_align.errors import AmbiguousName, ConfigError, LitAlignError, UnknownName
from lit_align.stages.base import Stage
from lit_align.stages.checkpoints import SafeIO
from lit_align.stages.language_model_stage import LanguageModelStage

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

EPILOG = (
    "lit-align fit --model Preference --model.objective.help DPO shows the settings of an objective, which are given "
    "as in --model.objective.beta 0.3; lit-align plugins objectives lists all objectives."
)


class _SaveConfig(SaveConfigCallback):
    """Write ``config.yaml`` into the run folder, wherever the loggers write."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Agree on the folder first: processes that another launcher started may each have chosen one."""
        trainer._default_root_dir = trainer.strategy.broadcast(trainer.default_root_dir)  # type: ignore[attr-defined]
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the settings as they were understood."""
        path = Path(trainer.default_root_dir) / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, str(path), skip_none=False, overwrite=True)


class _Bar(RichProgressBar):
    """Lightning's, which counts epochs to -2 where it is steps that are limited."""

    def _get_train_description(self, current_epoch: int) -> str:
        return super()._get_train_description(current_epoch).replace("/-2", "")


class LitAlignCLI(LightningCLI):
    """LightningCLI with a folder for each run, whole checkpoints, and a report at the end."""

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Hide Lightning's seed_everything: all that is drawn here depends on model.seed and data.seed alone."""
        parser.add_argument("--seed_everything", default=None, help=argparse.SUPPRESS)

    def _set_seed(self) -> None:
        pass

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what concerns the run as a whole."""
        parser.add_argument(
            "--run",
            type=str,
            default="runs/default",
            help="Folder of runs; each one gets a number in it.",
        )
        parser.add_argument(
            "--save_every",
            type=int,
            default=50,
            help="Steps between checkpoints of the newest state.",
        )
        parser.add_argument(
            "--answers",
            type=str | None,
            help="Folder of a predict that was stopped, to go on with.",
        )

    def choose(self, runs: Path) -> Path:
        """The run's folder."""
        return _folder(runs)

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder, and refuse what would be ignored or done twice."""
        config = self.config[str(self.subcommand)]
        _refuse(config)
        if config.trainer.max_epochs is None and config.trainer.max_steps == -1:
            config.trainer.max_epochs = 1  # no default of the parser: it would cut max_steps short
        self.folder = self.choose(Path(config.run))
        if config.trainer.logger in (None, True):
            here = {"save_dir": str(self.folder), "name": "", "version": ""}
            options: tuple[dict[str, Any], ...] = (
                {"flush_logs_every_n_steps": 1},
                {"default_hp_metric": False},
            )
            self.loggers = [
                cls(**here, **more)
                for cls, more in zip((CSVLogger, TensorBoardLogger), options, strict=True)
            ]

    def instantiate_classes(self) -> None:
        """Make the stage, the data and the trainer; what a class says against its settings is a mistake in them."""
        try:
            super().instantiate_classes()
            self.model.check_data(
                self.datamodule
            )  # before the data ask the stage for what it may lack
        except ValueError as error:
            raise ConfigError(explain(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add loggers, checkpoints and the report to what the YAML asks for."""
        config = self.config_init[str(self.subcommand)]
        asked = config.trainer.callbacks or []
        asked = asked if isinstance(asked, list) else [asked]
        extra: list[Any] = [LastCheckpoint(config.save_every)]
        if isinstance(self.model, LanguageModelStage):
            extra.append(PredictionWriter(config.answers))
            extra += [] if any(isinstance(callback, Report) for callback in asked) else [Report()]
        extra += [_Bar()] if config.trainer.enable_progress_bar is not False else []
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": extra}
        given = config.trainer.plugins or []
        kwargs["plugins"] = [*(given if isinstance(given, list) else [given]), SafeIO()]
        if config.trainer.logger in (None, True):
            kwargs["logger"] = self.loggers
        try:
            trainer = super().instantiate_trainer(default_root_dir=str(self.folder), **kwargs)
        except (MisconfigurationException, TypeError) as error:
            raise ConfigError(f"{str(error).rstrip('.!')}; change it under trainer") from error
        # the state is saved before the report is made, which may fail; Lightning moves checkpoints behind all else
        trainer.callbacks.sort(key=lambda callback: isinstance(callback, Report))  # type: ignore[attr-defined]
        return trainer

    def _parse_ckpt_path(self) -> None:
        # Lightning would put the checkpoint's settings over those of the YAML, without a word; here what is written
        # holds, and a checkpoint that does not fit is refused
        pass

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # nothing in a checkpoint is executed, whoever made it
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand == "fit":
            return super()._run_subcommand(subcommand)
        # nothing is to be saved: stop at once; Lightning alone would take note and run to the end
        handler = signal.signal(signal.SIGTERM, _stop)
        try:
            super()._run_subcommand(subcommand)
        finally:
            signal.signal(signal.SIGTERM, handler)

    def before_fit(self) -> None:
        """Say what is about to happen, as it was understood."""
        what = (
            self.model.objective
            if isinstance(self.model, LanguageModelStage)
            else self.model.embedder
        )
        _say(f"{type(self.model).__name__} · {what!r} · {self.model.base.path}")

    def before_predict(self) -> None:
        """Refuse a stage that does not speak; Lightning would ask for a method."""
        if not isinstance(self.model, LanguageModelStage):
            raise ConfigError(
                f"{type(self.model).__name__} answers no prompts; use validate or test"
            )

    def after_fit(self) -> None:
        """Say so if a checkpoint left nothing to do: Lightning ends without a word."""
        if self.config.fit.ckpt_path and not (self.folder / "summary.json").exists():
            _say(
                f"nothing was trained: the run of {self.config.fit.ckpt_path} is complete; raise trainer.max_epochs or "
                "trainer.max_steps to go on"
            )


class _Parsed(LitAlignCLI):
    """Everything up to the run itself."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the card that the run should fit on."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--card", type=float, default=24.0, help="GiB of the GPU that inspect predicts for."
        )

    def choose(self, runs: Path) -> Path:
        """None is made, and none is written to."""
        return runs

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Ask for no GPU: none is used."""
        return super().instantiate_trainer(accelerator="cpu", devices=1, **kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        pass


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


def _stop(*_: Any) -> None:
    raise SIGTERMException


def _refuse(config: Namespace) -> None:
    for name, every in {
        "save_every": config.save_every,
        "trainer.log_every_n_steps": config.trainer.log_every_n_steps,
    }.items():
        if every is not None and every < 1:
            raise ConfigError(f"{name} is {every}; it is a number of steps, at least 1")
    if config.ckpt_path and "://" not in config.ckpt_path and not Path(config.ckpt_path).exists():
        raise ConfigError(
            f"there is no checkpoint {config.ckpt_path}; give the path of one after --ckpt_path"
        )
    if config.seed_everything is not None:
        raise ConfigError(
            f"seed_everything is {config.seed_everything}; leave it out and set model.seed (of the adapter's initial "
            "weights, dropout and sampling) and data.seed (of the order of steps)"
        )
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
    """A fresh folder for this run, taken by making it; processes that it starts share it."""
    if "LOCAL_RANK" in os.environ and "LIT_ALIGN_RUN" in os.environ:
        return Path(os.environ["LIT_ALIGN_RUN"])
    # processes of another launcher share no environment: the folder of rank 0 is agreed on later
    if getattr(rank_zero_only, "rank", 0):
        return runs
    number = max((int(path.name) for path in runs.glob("*") if path.name.isdigit()), default=-1) + 1
    while True:
        folder = runs / str(number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # a run that began at the same moment
            number += 1
            continue
        os.environ["LIT_ALIGN_RUN"] = str(folder)
        return folder


def _tidy() -> None:
    """Remove the folder of a run that was refused, if it holds nothing to look at, such as a ledger."""
    if folder := os.environ.get("LIT_ALIGN_RUN"):
        left = {
            path.name for path in Path(folder).glob("*") if not path.name.startswith("events.out.")
        }
        if left <= {"config.yaml", "hparams.yaml"}:
            shutil.rmtree(folder, ignore_errors=True)


def main(args: list[str] | None = None) -> None:
    """Run ``lit-align`` with ``args``; exits with 2 for a mistake in the settings and 143 after SIGTERM.

    Raises:
        SystemExit: with a sentence that says what is wrong and how to go on.
    """
    args = sys.argv[1:] if args is None else args
    if "LOCAL_RANK" not in os.environ:
        os.environ.pop("LIT_ALIGN_RUN", None)  # of another run in this process
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message)
    for name in (
        "pytorch.utilities",
        "fabric.utilities",
    ):  # what a service has to offer is not about this run
        logging.getLogger(f"lightning.{name}.rank_zero").addFilter(
            lambda record: "litlogger" not in record.getMessage()
        )
    logging.getLogger("lightning.pytorch.trainer.connectors.checkpoint_connector").addFilter(
        lambda record: "weights_only" not in record.getMessage()
    )
    set_parsing_settings(
        import_path_allowlist=[]
    )  # enforces the denylist: a YAML may not name os, subprocess or eval
    try:
        import_settings_classes()
        refuse_inherited(args)
        if args[:1] == ["inspect"]:
            parsed = _cli(_Parsed, ["fit", *args[1:]])
            if not isinstance(parsed.model, LanguageModelStage):
                raise ConfigError(
                    f"inspect looks at text, and {type(parsed.model).__name__} learns from other data"
                )
            inspect.run(parsed.model, parsed.datamodule, parsed.config.fit.card)
        elif args[:1] == ["evaluate"]:
            evaluate.run(args[1:], _folder)
        elif args[:1] == ["judge"]:
            judge.run(args[1:], _folder)
        else:
            _cli(LitAlignCLI, args)
    except (ArgumentError, argparse.ArgumentError) as error:
        print(f"lit-align: {explain(str(error))}", file=sys.stderr)
        sys.exit(2)
    except LitAlignError as error:
        _tidy()
        print(f"lit-align: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError | UnknownName | AmbiguousName) else 1)
    except SIGTERMException:
        sys.exit(143)  # Lightning alone would exit with 0


def _cli(cls: type[LitAlignCLI], args: list[str]) -> LitAlignCLI:
    quiet = {
        "exit_on_error": False
    }  # so that the message can be explained instead of printed under the whole usage
    return cls(
        Stage,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        trainer_defaults={"enable_model_summary": False, "num_sanity_val_steps": 0},
        save_config_callback=_SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={
            **quiet,
            **{
                name: {**quiet, "epilog": EPILOG} for name in ("fit", "validate", "test", "predict")
            },
        },
        args=args,
    )
