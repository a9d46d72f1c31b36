"""``lit-align``: the commands that need Lightning. LightningCLI runs all but inspect, judge and evaluate."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import traceback
import warnings

from jsonargparse import ArgumentError, set_parsing_settings
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_align.cli import evaluate, inspect, judge
from lit_align.cli.closed_pipe import reader_is_gone
from lit_align.cli.failures import explain_class_error, explain_failure
from lit_align.cli.help import asks_for_help, print_help
from lit_align.cli.lost_process import end_without_others, is_told_elsewhere, lost_connection
from lit_align.cli.objective_switch import refuse_inherited
from lit_align.cli.run_folder import forget_run_folder, remove_empty_run_folder
from lit_align.cli.schedule_settings import refuse_schedules
from lit_align.cli.time_report import TimeOptions, shards_of
from lit_align.cli.training import InspectCLI, LitAlignCLI, run_cli
from lit_align.cli.trl_settings import refuse_trl_settings
from lit_align.cli.written_settings import refuse_written_mistakes
from lit_align.compat.peft import ignore_deprecated_name
from lit_align.disk_errors import disk_error
from lit_align.errors import AmbiguousName, ConfigError, LitAlignError, UnknownName
from lit_align.plugin_calls import find_foreign_exit
from lit_align.plugin_failures import shows_tracebacks
from lit_align.plugins import load_plugins
from lit_align.stages.language_model_stage import LanguageModelStage

PYTORCH = r"lightning\.pytorch"

EXPECTED_WARNINGS: tuple[tuple[str, type[Warning], str], ...] = (
    ("LightningCLI's args parameter is intended", UserWarning, rf"{PYTORCH}\.cli"),
    (
        ".*does not have many workers",
        PossibleUserWarning,
        rf"{PYTORCH}\.trainer\.connectors\.data_connector",
    ),
    ("Couldn't infer the batch indices", UserWarning, rf"{PYTORCH}\.loops\.prediction_loop"),
    (
        r".*module\(s\) in eval mode at the start of training",
        PossibleUserWarning,
        rf"{PYTORCH}\.loops\.fit_loop",
    ),
    (
        ".*is smaller than the logging interval",
        PossibleUserWarning,
        rf"{PYTORCH}\.loops\.fit_loop",
    ),
    (
        "Total length of `list` across ranks is zero",
        UserWarning,
        rf"{PYTORCH}\.utilities\.data",
    ),
    (
        r".*isinstance\(treespec, LeafSpec\)",
        FutureWarning,
        rf"{PYTORCH}\.utilities\._pytree",
    ),
    (
        "Experiment logs directory.*exists and is not empty",
        UserWarning,
        r"lightning\.fabric\.loggers\.csv_logs",
    ),
)
"""Warnings of other libraries about what is intended here: message, category and module."""

LOG_LINES = {
    "lightning.pytorch.utilities.rank_zero": "litlogger",
    "lightning.fabric.utilities.rank_zero": "litlogger",
    "lightning.pytorch.trainer.connectors.checkpoint_connector": "weights_only",
}
"""Log lines that are hidden: advertisement, and a default that is set here. Logger, and what the line contains."""


def main(arguments: list[str] | None = None) -> None:
    """Run ``lit-align``; exits with 2 for a mistake in the settings and 143 after SIGTERM.

    Raises:
        SystemExit: with a sentence that says what is wrong and what to do.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    forget_run_folder()
    _hide_expected_messages()
    # an empty list enforces the denylist: a YAML may not name os, subprocess or eval
    set_parsing_settings(import_path_allowlist=[])
    try:
        _run_command(arguments)
    except (ArgumentError, argparse.ArgumentError) as error:
        _show_traceback()
        print(f"lit-align: {explain_class_error(error)}", file=sys.stderr)
        sys.exit(2)
    except LitAlignError as error:
        remove_empty_run_folder()
        _show_traceback()
        if not is_told_elsewhere(error):
            print(f"lit-align: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError | UnknownName | AmbiguousName) else 1)
    except SIGTERMException:
        sys.exit(143)  # Lightning alone would exit with 0
    except SystemExit as error:
        place = find_foreign_exit(error)
        if place is None or reader_is_gone(error):
            raise
        print(
            f"lit-align: {place} ended the process ({error!r}), so the run is not complete; a plugin reports a failure "
            "by raising an Exception",
            file=sys.stderr,
        )
        sys.exit(1)
    except Exception as error:  # also those that libraries make of a full disk
        if lost_connection(error):
            end_without_others(error)
        sentence = None if reader_is_gone(error) else explain_failure(error)
        if sentence is None:
            raise
        _show_traceback()
        print(f"lit-align: {sentence}", file=sys.stderr)
        sys.exit(1)


def _show_traceback() -> None:
    """Print the traceback of the exception that is handled, if the user wants it."""
    if shows_tracebacks():
        traceback.print_exc()


def _run_command(arguments: list[str]) -> None:
    load_plugins().load_stages()  # so that their short names are known
    command = arguments[0] if arguments else ""
    if command == "evaluate":
        evaluate.run(arguments[1:])
    elif command == "judge":
        judge.run(arguments[1:])
    elif asks_for_help(arguments):
        print_help(arguments)
        sys.exit()
    else:
        refuse_written_mistakes(arguments)
        refuse_schedules(arguments)
        refuse_trl_settings(arguments)
        refuse_inherited(arguments)
        if command == "inspect":
            _inspect(arguments[1:])
        else:
            run_cli(LitAlignCLI, arguments)


def _inspect(arguments: list[str]) -> None:
    cli = run_cli(InspectCLI, ["fit", *arguments])
    if not isinstance(cli.model, LanguageModelStage):
        raise ConfigError(
            f"inspect looks at text, and {type(cli.model).__name__} learns from other data"
        )
    config = cli.config.fit
    times = TimeOptions(
        config.cards, config.sampler, config.sampler_speed, config.response_tokens, config.link
    )
    inspect.run(cli.model, cli.datamodule, config.card, times, shards_of(config))


def _hide_expected_messages() -> None:
    for message, category, module in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message, category, module)
    ignore_deprecated_name()
    for logger, text in LOG_LINES.items():
        logging.getLogger(logger).addFilter(_HideLines(text))
    threading.excepthook = _report_thread_error


def _report_thread_error(error: threading.ExceptHookArgs) -> None:
    """Print the error of a thread, unless the disk refuses: TensorBoard's thread raises that in the next step again."""
    if error.exc_value is None or disk_error(error.exc_value) is None:
        threading.__excepthook__(error)


class _HideLines(logging.Filter):
    """Drops log lines that contain a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a line."""
        return self.text not in record.getMessage()
