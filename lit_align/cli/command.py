"""What our own commands about judges share: their settings, the ledger on the screen, and what judging took."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentError, ArgumentParser

from lit_align.cli.error_messages import explain
from lit_align.data.formats import Format
from lit_align.data.ledger import Ledger
from lit_align.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

READING: dict[str, dict[str, Any]] = {
    "data": {
        "type": str,
        "nargs": "+",
        "required": True,
        "help": "Files or hub data sets, such as allenai/reward-bench:filtered.",
    },
    "format": {
        "type": Format | None,
        "default": None,
        "help": "The layout of the rows; null finds it.",
    },
    "max_malformed": {
        "type": float,
        "default": 0.01,
        "help": "Share of malformed rows at which to stop.",
    },
    "batch_size": {"type": int, "default": 16, "help": "Prompts that the judge is given at once."},
}
"""What is judged."""


def understood(
    command: str,
    settings: dict[str, dict[str, Any]],
    arguments: list[str],
    choose: Callable[[Path], Path],
    refuse: Callable[[Any], object] = lambda made: None,
) -> tuple[Any, Path]:
    """The settings as they were understood, and a folder of the run's own with them in ``config.yaml``.

    Args:
        command: as it is called.
        settings: what it takes, ``run`` among them.
        arguments: of the command line, behind the command.
        choose: makes a numbered folder in a folder of runs.
        refuse: raises if they do not go together.

    Raises:
        ConfigError: if the settings are not sound.
    """
    parser = reader(command)
    for name, setting in settings.items():
        parser.add_argument(f"--{name}", **setting)
    made, parsed = parse(parser, arguments, settings)
    if "batch_size" in settings and (made.batch_size < 1 or not 0 <= made.max_malformed <= 1):
        raise ConfigError(
            f"batch_size is {made.batch_size} and max_malformed {made.max_malformed}; they are at least 1, and from 0 to 1"
        )
    refuse(made)
    folder = choose(Path(made.run))
    parser.save(parsed, str(folder / "config.yaml"), skip_none=False)
    return made, folder


def reader(command: str, description: str | None = None) -> ArgumentParser:
    """What reads the settings of a command, from a YAML too."""
    parser = ArgumentParser(command, description=description, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="YAML with these settings.")
    return parser


def parse(
    parser: ArgumentParser, arguments: Sequence[str], names: Iterable[str]
) -> tuple[Any, Any]:
    """The settings with their classes made, and as they were parsed.

    Raises:
        ConfigError: if they are not sound.
    """
    try:
        parsed = parser.parse_args(list(arguments))
        return parser.instantiate(parsed), parsed
    except (
        ArgumentError,
        ValueError,
    ) as error:  # the latter is what a class says against its settings
        raise ConfigError(explain(str(error), names)) from error


def check_free(host: str, port: int) -> None:
    """Refuse an address that nobody can listen at.

    Raises:
        ConfigError: with the system's reason.
    """
    try:
        socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        ).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"nobody can listen at port {port} of {host}: {error}; name another one"
        ) from error


def shown(console: Console, folder: Path) -> Callable[[Ledger], None]:
    """What puts a ledger on the screen and into the folder."""

    def show(ledger: Ledger) -> None:
        console.print(ledger.table(), highlight=False, markup=False)
        (folder / "ledger.json").write_text(ledger.to_json() + "\n", encoding="utf-8")

    return show


def tell(console: Console, asked: dict[str, Any]) -> None:
    """Say what became of the questions, from what `summary` gives."""
    lines = [
        f"{asked['labelled']:,} of {asked['groups']:,} groups have a label, from {asked['questions']:,} questions"
    ]
    lines += [f"{count:,} set aside: {why}" for why, count in asked["set_aside"].items()]
    lines += [f"{count:,} unread: {why}" for why, count in asked["unread"].items()]
    if asked["attempts"] or asked["cached"]:
        spent = (
            f"{asked['attempts']:,} attempts at a server, {asked['cached']:,} answers from the file"
        )
        lines.append(f"{spent}, cost {asked['cost']:.4f}")
    if asked["order_dependent"] is not None:
        rates = f"{100 * asked['order_dependent']:.1f} % of pairs depend on their order"
        lines.append(f"{rates}; {100 * asked['first_wins']:.1f} % of verdicts are for the first")
    elif asked["first_wins"] is not None:
        lines.append(
            f"{100 * asked['first_wins']:.1f} % of verdicts are for the response that was shown first"
        )
    for line in lines:
        console.print(line, highlight=False, markup=False)
