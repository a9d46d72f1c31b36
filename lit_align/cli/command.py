"""What the commands about judges share: their settings, the ledger on the screen, and a summary of the judging."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentError, ArgumentParser

from lit_align.cli.data_options import named_as_options, without_prefix
from lit_align.cli.failures import explain_class_error
from lit_align.cli.run_folder import create_run_folder
from lit_align.cli.whole_options import WholeOptions
from lit_align.cli.written_settings import refuse_written_mistakes
from lit_align.data.column_fates import ColumnSettings, columns_read_by
from lit_align.data.formats import Format
from lit_align.data.ledger import Ledger, write_ledger_rows
from lit_align.data.read_groups import DataSource, load_groups
from lit_align.errors import ConfigError
from lit_align.jsonl import write_json
from lit_align.plugin_calls import set_plugin_timeout
from lit_align.plugin_signatures import check_signatures
from lit_align.plugins import load_plugins
from lit_align.types import Group, LabelKind

if TYPE_CHECKING:
    from rich.console import Console

Settings = dict[str, dict[str, Any]]

DATA_SETTINGS: Settings = {
    "data": {
        "type": str,
        "nargs": "+",
        "required": True,
        "help": "Files, or data sets on the hub (name/config:split@revision), such as allenai/reward-bench:filtered.",
    },
    "format": {
        "type": Format | None,
        "default": None,
        "help": "The format of the rows; null finds it.",
    },
    "columns": {
        "type": dict[str, str],
        "default": {},
        "help": "The file's column for each column of the format that it names differently.",
    },
    "ignore_columns": {
        "type": list[str],
        "default": [],
        "help": "Columns that are not read, although their names say that they change what is judged.",
    },
    "max_malformed": {
        "type": float,
        "default": 0.01,
        "help": "Share of malformed rows at which to stop.",
    },
    "batch_size": {"type": int, "default": 16, "help": "Prompts that the judge gets at once."},
    "plugin_timeout": {
        "type": float | None,
        "default": None,
        "help": "Seconds that one call of the judge may take; null for no limit.",
    },
}
"""Settings of the data that are judged."""


def run_setting(default: str) -> Settings:
    """The setting of the folder that a command writes to."""
    help_text = "Folder of runs; each one gets a number in it."
    return {"run": {"type": str, "default": default, "help": help_text}}


def parse_settings(
    command: str,
    settings: Settings,
    arguments: list[str],
    refuse: Callable[[Any], object] = lambda parsed: None,
) -> tuple[Any, Path]:
    """The parsed settings of a command, and a new run folder with them in ``config.yaml``.

    Args:
        command: its name on the command line.
        settings: what it accepts, ``run`` among them.
        arguments: of the command line, after the command.
        refuse: raises if the settings do not go together.

    Raises:
        ConfigError: if the settings are not valid.
    """
    parser = command_parser(command, settings)
    values, parsed = parse_arguments(parser, arguments, settings)
    if "batch_size" in settings and (values.batch_size < 1 or not 0 <= values.max_malformed <= 1):
        raise ConfigError(
            f"batch_size is {values.batch_size} and max_malformed {values.max_malformed}; they are at least 1, and "
            "from 0 to 1"
        )
    refuse(values)
    check_signatures(*vars(values).values())
    if "plugin_timeout" in settings:
        set_plugin_timeout(values.plugin_timeout)
    folder = create_run_folder(Path(values.run))
    parser.save(parsed, str(folder / "config.yaml"), skip_none=False)
    return values, folder


def command_parser(command: str, settings: Settings) -> ArgumentParser:
    """A parser for the settings of a command that are listed one by one."""
    parser = settings_parser(command)
    for name, options in settings.items():
        parser.add_argument(f"--{name}", **options)
    return parser


def settings_parser(command: str, description: str | None = None) -> ArgumentParser:
    """A parser for the settings of a command, from a YAML too."""
    parser = WholeOptions(command, description=description, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="YAML with these settings.")
    return parser


def parse_arguments(
    parser: ArgumentParser, arguments: Sequence[str], names: Iterable[str]
) -> tuple[Any, Any]:
    """The settings with their classes instantiated, and as they were parsed.

    Raises:
        ConfigError: if they are not valid.
    """
    names = list(names)
    arguments = without_prefix(arguments, names)
    refuse_written_mistakes(arguments, parser.prog)
    try:
        parsed = parser.parse_args(arguments)
        return parser.instantiate(parsed), parsed
    except (ArgumentError, ValueError) as error:  # the latter is raised by a class for its settings
        raise ConfigError(explain_class_error(error, names)) from error


def check_port_free(host: str, port: int) -> None:
    """Refuse an address that no server can listen at.

    Raises:
        ConfigError: with the system's reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"nothing can listen at port {port} of {host}: {error}; name another one"
        ) from error


def _ledger_printer(console: Console, folder: Path) -> Callable[[Ledger], None]:
    """A function that prints a ledger and writes it into the folder."""

    def show(ledger: Ledger) -> None:
        console.print(ledger.table(), highlight=False, markup=False)
        write_json(folder / "ledger.json", ledger.to_dict())
        write_ledger_rows(folder, {"data": ledger})

    return show


def load_judged_groups(
    settings: Any,
    label_kind: LabelKind,
    console: Console,
    folder: Path,
    read_columns: Collection[str] = (),
) -> list[Group]:
    """The groups of the data that ``DATA_SETTINGS`` name; the ledger is printed and written into the folder.

    Args:
        settings: of the command.
        label_kind: the label kind that rows are converted to.
        console: to print to.
        folder: of the run.
        read_columns: columns that the command itself reads.
    """
    judges = [getattr(settings, name, None) for name in ("reward", "feedback")]
    read = columns_read_by(*judges) | set(read_columns)
    source = DataSource(
        settings.data,
        label_kind,
        settings.format,
        load_plugins().formats.default_instances(),
        max_malformed=settings.max_malformed,
        on_ledger=_ledger_printer(console, folder),
        columns=ColumnSettings(settings.columns, settings.ignore_columns, read),
    )
    with named_as_options():
        return load_groups(source)


def print_judging(console: Console, counts: dict[str, Any]) -> None:
    """Print what became of the judge's questions, from the result of `summary`."""
    lines = [
        f"{counts['labelled']:,} of {counts['groups']:,} groups have a label, from {counts['questions']:,} questions"
    ]
    for reason, count in counts["set_aside"].items():
        lines.append(f"{count:,} set aside: {reason}")
    for reason, count in counts["unread"].items():
        lines.append(f"{count:,} unread: {reason}")
    if counts["attempts"] or counts["cached"]:
        lines.append(
            f"{counts['attempts']:,} attempts at a server, {counts['cached']:,} answers from the file, "
            f"cost {counts['cost']:.4f}"
        )
    if counts["order_dependent"] is not None:
        lines.append(
            f"{100 * counts['order_dependent']:.1f} % of pairs depend on their order; "
            f"{100 * counts['first_wins']:.1f} % of verdicts are for the first"
        )
    elif counts["first_wins"] is not None:
        lines.append(
            f"{100 * counts['first_wins']:.1f} % of verdicts are for the response that was shown first"
        )
    for line in lines:
        console.print(line, highlight=False, markup=False)
