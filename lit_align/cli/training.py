"""LightningCLI for fit, validate, test and predict: a folder for each run, whole checkpoints, a report at the end."""

from __future__ import annotations

import argparse
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_align.callbacks.answers_bar import AnswersBar
from lit_align.callbacks.last_checkpoint import LastCheckpoint
from lit_align.callbacks.metrics_history import MetricsHistory
from lit_align.callbacks.predictions import PredictionWriter
from lit_align.callbacks.report import Report
from lit_align.callbacks.run_status import RunStatus
from lit_align.callbacks.samples import SampleLog, Samples
from lit_align.cli.failures import explain_class_error
from lit_align.cli.loggers import LoggingTrainer, begin_runs, make_loggers, refuse_missing_packages
from lit_align.cli.null_values import refuse_nulls
from lit_align.cli.refusals import refuse_settings
from lit_align.cli.run_folder import create_run_folder, set_run_folder
from lit_align.cli.whole_options import WholeRunOptions
from lit_align.compat.lightning import set_root_dir, steps_bar
from lit_align.errors import ConfigError
from lit_align.models.cuda_settings import MatmulPrecision, set_matmul_precision
from lit_align.plugin_calls import set_plugin_timeout
from lit_align.stages.base import Stage
from lit_align.stages.checkpoints import SafeIO
from lit_align.stages.language_model_stage import LanguageModelStage

EPILOG = (
    "lit-align fit --model Preference --model.objective.help DPO shows the settings of an objective, which are given "
    "as in --model.objective.beta 0.3; lit-align plugins objectives lists all objectives. "
    "lit-align fit --task dpo --base MODEL --data FILE stands for the packaged config of a task (lit-align init lists "
    "them) with --model.base.path MODEL and --data.train FILE, without its validation data and on the GPU if there is "
    "one; all other settings can follow. -c NAME finds the packaged config NAME where there is no such file."
)


class SaveConfig(SaveConfigCallback):
    """Write ``config.yaml`` into the run folder, wherever the loggers write."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Use the folder of rank 0 first: processes of another launcher may each have chosen one."""
        set_root_dir(trainer, trainer.strategy.broadcast(trainer.default_root_dir))
        set_run_folder(Path(trainer.default_root_dir))
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the parsed settings."""
        path = Path(trainer.default_root_dir) / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, str(path), skip_none=False, overwrite=True)


class LitAlignCLI(LightningCLI):
    """LightningCLI with a folder for each run, whole checkpoints, and a report at the end."""

    folder: Path
    ckpt_path: str | None
    checkpoint_io: SafeIO

    def __init__(self, *settings: Any, command: str | None, **options: Any) -> None:
        self.command = command  # first: the parser is built, and the command run, by what follows
        super().__init__(*settings, **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command that is run, of those that Lightning has: the parser of each takes a while to build."""
        commands = LightningCLI.subcommands()
        return {self.command: commands[self.command]} if self.command in commands else commands

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Hide Lightning's seed_everything: all randomness depends on model.seed and data.seed alone."""
        parser.add_argument(
            "--seed_everything", default=self.seed_everything_default, help=argparse.SUPPRESS
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the settings of the run as a whole."""
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
            "--samples",
            type=Samples | None,
            default=None,
            help="Show answers to a few prompts while training, as in {every: 50, prompts: 4}; null shows none.",
        )
        parser.add_argument(
            "--float32_matmul_precision",
            type=MatmulPrecision | None,
            default=None,
            help="Products of float32 matrices on a GPU, such as an adapter's: highest, high (TF32) or medium; null is "
            "high, and highest where model.base.dtype is float32. On a CPU they are exact.",
        )
        parser.add_argument(
            "--plugin_timeout",
            type=float | None,
            default=None,
            help="Seconds that one call of a reward, feedback source or objective may take; null for no limit.",
        )
        parser.add_argument(
            "--answers",
            type=str | None,
            help="Folder of an interrupted predict to resume.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Refuse what would be ignored or done twice; put the checkpoint's path aside.

        Lightning would silently put the settings in the checkpoint over those of the YAML. Here the YAML holds, and a
        checkpoint that does not fit is refused.
        """
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        refuse_nulls(config)
        refuse_settings(config)
        refuse_missing_packages(config.trainer.logger)
        config.seed_everything = self.seed_everything_default  # null in saved settings
        self.ckpt_path, config.ckpt_path = config.ckpt_path, None

    def before_instantiate_classes(self) -> None:
        """Create the run's folder and its loggers."""
        config = self._run_config(self.config)
        set_plugin_timeout(config.plugin_timeout)
        config.ckpt_path = self.ckpt_path
        config.seed_everything = None  # as in the YAML: model.seed and data.seed are the seeds
        if config.trainer.max_epochs is None and config.trainer.max_steps == -1:
            config.trainer.max_epochs = 1  # as a default of the parser it would cut max_steps short
        self.folder = self.create_folder(Path(config.run))

    def create_folder(self, runs: Path) -> Path:
        """The run's folder."""
        return create_run_folder(runs)

    def instantiate_classes(self) -> None:
        """Instantiate the stage, the data and the trainer; an error of a class in its settings is a ConfigError."""
        try:
            super().instantiate_classes()
            # before the data use attributes that another kind of stage lacks
            self.model.check_data(self.datamodule)
            if self.subcommand == "fit":
                self.model.check_before_data(self.trainer, self.datamodule)
        except ValueError as error:
            raise ConfigError(explain_class_error(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add loggers, checkpoints and the report to what the YAML sets."""
        config = self._run_config(self.config_init)
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": self._callbacks(config)}
        self.checkpoint_io = SafeIO()
        kwargs["plugins"] = [*_as_list(config.trainer.plugins), self.checkpoint_io]
        kwargs["logger"] = make_loggers(config.trainer.logger, self.folder)
        try:
            trainer = super().instantiate_trainer(default_root_dir=str(self.folder), **kwargs)
        except (MisconfigurationException, TypeError) as error:
            raise ConfigError(_describe_trainer_error(config.trainer, error)) from error
        base = getattr(self.model, "base", None)  # a stage of a plugin may have none
        if base is not None:
            device, precision = trainer.strategy.root_device, config.float32_matmul_precision
            set_matmul_precision(base, device, precision)
        # The state is saved before report and samples, which may fail. Lightning puts checkpoints last.
        trainer.callbacks.sort(key=_place_after_checkpoints)  # type: ignore[attr-defined]
        return trainer

    def fit(self, **options: Any) -> None:
        """Train; a checkpoint is read without executing anything in it."""
        begin_runs(self.trainer.loggers)
        self.trainer.fit(**{**options, "weights_only": True})

    def validate(self, **options: Any) -> None:
        """Compute metrics on the validation data."""
        begin_runs(self.trainer.loggers)
        _run_until_sigterm(self.trainer.validate, options)

    def test(self, **options: Any) -> None:
        """Compute metrics on the test data."""
        begin_runs(self.trainer.loggers)
        _run_until_sigterm(self.trainer.test, options)

    def predict(self, **options: Any) -> None:
        """Answer the validation prompts."""
        begin_runs(self.trainer.loggers)
        _run_until_sigterm(self.trainer.predict, options)

    def before_fit(self) -> None:
        """Print what will be trained."""
        is_language_model = isinstance(self.model, LanguageModelStage)
        part = self.model.objective if is_language_model else self.model.embedder
        print_once(f"{type(self.model).__name__} · {part!r} · {self.model.base.path}")
        if self.ckpt_path:
            checkpoint = self.checkpoint_io.read_ahead(Path(self.ckpt_path))
            self.model.resumption.checkpoint = checkpoint

    def before_predict(self) -> None:
        """Refuse a stage that generates no text; Lightning would miss a method."""
        if not isinstance(self.model, LanguageModelStage):
            raise ConfigError(
                f"{type(self.model).__name__} answers no prompts; use validate or test"
            )

    def after_fit(self) -> None:
        """Print that a checkpoint left nothing to train: Lightning ends silently."""
        if self.ckpt_path and not self.model.has_trained:
            print_once(
                f"nothing was trained: the run of {self.ckpt_path} is complete; raise trainer.max_epochs or "
                "trainer.max_steps to go on"
            )

    def _run_config(self, config: Namespace) -> Namespace:
        run_config: Namespace = config[str(self.subcommand)]
        return run_config

    def _callbacks(self, config: Namespace) -> list[Any]:
        callbacks: list[Any] = [
            RunStatus(),
            LastCheckpoint(config.save_every),
            MetricsHistory(),
        ]
        if config.samples is not None:
            callbacks.append(SampleLog(config.samples))
        has_bar = config.trainer.enable_progress_bar is not False
        gives_answers = self.subcommand == "predict" and "policy" in getattr(
            self.model, "trained_roles", ()
        )
        if has_bar:
            callbacks.append(AnswersBar() if gives_answers else steps_bar())
        if isinstance(self.model, LanguageModelStage):
            callbacks.append(PredictionWriter(config.answers))
            if not any(
                isinstance(callback, Report) for callback in _as_list(config.trainer.callbacks)
            ):
                callbacks.append(Report())
        return callbacks


class InspectCLI(LitAlignCLI):
    """Parses and instantiates everything, and runs nothing."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the GPU that the run should fit on."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--card", type=float, default=24.0, help="GiB of the GPU that inspect predicts for."
        )
        parser.add_argument(
            "--cards", type=int | None, default=None, help="Processes to predict the time for."
        )
        parser.add_argument(
            "--sampler", default="in_process", help="in_process or served, for the time."
        )
        parser.add_argument(
            "--sampler_speed", type=float | None, default=None, help="Tokens a second when served."
        )
        parser.add_argument(
            "--response_tokens", type=int | None, default=None, help="Tokens of a response."
        )
        parser.add_argument("--link", type=float, default=10.0, help="GB/s between cards.")

    def create_folder(self, runs: Path) -> Path:
        """No folder: inspect writes nothing."""
        return runs

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Need no GPU."""
        return super().instantiate_trainer(accelerator="cpu", devices=1, **kwargs)

    def before_fit(self) -> None:
        """Print nothing."""

    def fit(self, **options: Any) -> None:
        """Train nothing."""

    def after_fit(self) -> None:
        """Print nothing."""


def run_cli(cls: type[LitAlignCLI], arguments: list[str]) -> LitAlignCLI:
    """Parse ``arguments`` and run the subcommand in them; errors are raised, not printed under the usage."""
    names = LightningCLI.subcommands()
    command = arguments[0] if arguments and arguments[0] in names else None
    parser_options: dict[str, Any] = {"exit_on_error": False}
    for name in [command] if command else names:
        parser_options[name] = {"exit_on_error": False, "epilog": EPILOG}
    return cls(
        Stage,
        LightningDataModule,
        trainer_class=LoggingTrainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=False,
        trainer_defaults={"enable_model_summary": False, "num_sanity_val_steps": 0},
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_class=WholeRunOptions,
        parser_kwargs=parser_options,
        args=arguments,
        command=command,
    )


@rank_zero_only
def print_once(text: str) -> None:
    """Print on rank 0."""
    print(text, flush=True)


def _run_until_sigterm(run: Callable[..., object], options: dict[str, Any]) -> None:
    """Stop at once at SIGTERM: there is no state to save, and Lightning would go on to the end.

    A checkpoint is read without executing anything in it.
    """
    handler = signal.signal(signal.SIGTERM, _raise_sigterm)
    try:
        run(**{**options, "weights_only": True})
    finally:
        signal.signal(signal.SIGTERM, handler)


def _raise_sigterm(*_: Any) -> None:
    raise SIGTERMException


def _describe_trainer_error(settings: Namespace, error: Exception) -> str:
    """What Lightning refused, with the settings that its words name."""
    reason = str(error).rstrip(".!")
    named = []
    for name, value in vars(settings).items():
        is_named = re.search(rf"\b{name}\b", reason) or re.search(
            rf"\b{re.escape(str(value))}\b", reason
        )
        if value not in (None, True, False) and is_named:
            named.append(f"trainer.{name} is {value}")
    return (
        f"{' and '.join(named) or 'trainer cannot be made'}: {reason}; correct it, or leave it out"
    )


def _place_after_checkpoints(callback: Any) -> int:
    """0 for a callback that stays where it is, a larger number for one that comes later."""
    if isinstance(callback, SampleLog):
        return 2
    return 1 if isinstance(callback, Report) else 0


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
