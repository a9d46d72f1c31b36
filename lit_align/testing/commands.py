"""Check of what every command must satisfy."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

from lit_align.errors import LitAlignError
from lit_align.plugin_failures import describe_exception, find_place
from lit_align.plugins import Command, require_command
from lit_align.testing.light_imports import require_light_import
from lit_align.testing.objective_checks import require
from lit_align.testing.refusals import require_sentence

MAX_HELP = 100  # characters of the line in a list


class _Ending(NamedTuple):
    """How a call of a command ended.

    Args:
        returned: what it returned.
        code: the exit code of the process.
        printed: to stdout.
        complaint: to stderr, the sentence of an error of ours included.
        traceback: an exception that lit-align does not put in words.
    """

    returned: object
    code: int
    printed: str
    complaint: str
    traceback: Exception | None = None


def check_command(
    register_commands: Callable[..., object],
    name: str,
    arguments: Sequence[str] | None = None,
    refused: Sequence[Sequence[str]] = (),
) -> str:
    r"""Fail unless a plugin's hook registers a command that helps, works and refuses; returns what it printed.

    The hook must print nothing, and neither it nor its module import anything heavy, because both are used whenever
    plugins are listed. ``--help`` must print a text and exit with 0. Where the command works it must exit with 0, and
    return None or 0. An error must be a sentence of an error in ``lit_align.errors`` or of argparse, and an exit code
    other than 0.

    Args:
        register_commands: the hook.
        name: of the command.
        arguments: with which it works; None runs it not.
        refused: lists of arguments that it must refuse.

    Raises:
        AssertionError: if a property does not hold.

    Example:
        >>> import argparse
        >>> def greet(arguments):
        ...     parser = argparse.ArgumentParser("lit-align greet", description="Print a greeting.")
        ...     parser.add_argument("who")
        ...     print("hello", parser.parse_args(arguments).who)
        >>> def register_commands(register):
        ...     register("greet", greet, "prints a greeting")
        >>> check_command(register_commands, "greet", ["owl"], refused=[[], ["owl", "--loud"]])
        'hello owl\n'
    """
    command = _registered(register_commands, name)
    label = f"the command {name!r}"
    _check_help(command, label)
    for wrong in refused:
        _check_refusal(label, wrong, _run(command, wrong))
    ending = _Ending(None, 0, "", "")
    if arguments is not None:
        ending = _run(command, arguments)
        _require_success(f"{label} with {list(arguments)}", ending)
    require_light_import(register_commands.__module__)
    return ending.printed


def _check_help(command: Command, label: str) -> None:
    ending = _run(command, ["--help"])
    _require_success(f"{label} with --help", ending)
    require(
        bool(ending.printed.strip()),
        f"{label} prints nothing with --help; print what its arguments mean",
    )


def _registered(register_commands: Callable[..., object], name: str) -> Command:
    """The command that the hook registers by this name."""
    commands: dict[Any, Command] = {}

    def register(command_name: str, function: Callable[[list[str]], object], help: str) -> None:
        command = Command(command_name, function, help, "the plugin")
        try:
            require_command(command, list(commands))
        except LitAlignError as error:
            raise AssertionError(str(error)) from error
        require(
            len(help) <= MAX_HELP,
            f"the help of {command_name!r} has {len(help)} characters; the list of commands shows {MAX_HELP}",
        )
        commands[command_name] = command

    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        register_commands(register=register)
    require(
        not printed.getvalue(),
        f"register_commands prints {printed.getvalue()!r}, and it runs whenever plugins are listed",
    )
    require(
        name in commands,
        f"register_commands registers {', '.join(commands) or 'nothing'}, not {name}",
    )
    return commands[name]


def _run(command: Command, arguments: Sequence[str]) -> _Ending:
    """Call a command as ``lit-align`` does."""
    printed, complaint = io.StringIO(), io.StringIO()
    returned: object = None
    code, traceback = 0, None
    with redirect_stdout(printed), redirect_stderr(complaint):
        try:
            returned = command.function(list(arguments))
        except LitAlignError as error:
            code = 1
            complaint.write(f"{error}\n")
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if isinstance(error.code, str):
                complaint.write(f"{error.code}\n")
        except Exception as error:
            code, traceback = 1, error
    return _Ending(returned, code, printed.getvalue(), complaint.getvalue(), traceback)


def _require_success(label: str, ending: _Ending) -> None:
    _require_no_traceback(label, ending)
    require(
        ending.code == 0,
        f"{label} ends with the exit code {ending.code}, not 0, and prints {ending.complaint!r}",
    )
    is_zero = type(ending.returned) is int and ending.returned == 0
    require(
        ending.returned is None or is_zero,
        f"{label} returns {ending.returned!r}, which lit-align does not read, so that it exits with 0; raise an error, "
        "or SystemExit with the code",
    )


def _check_refusal(label: str, wrong: Sequence[str], ending: _Ending) -> None:
    label = f"{label} with {list(wrong)}"
    _require_no_traceback(label, ending)
    require(
        ending.code != 0,
        f"{label} ends with the exit code 0; refuse it with an error of lit_align.errors",
    )
    sentence = ending.complaint.strip()
    if sentence.startswith("usage:"):  # of argparse, which then says what is wrong
        sentence = sentence.splitlines()[-1]
    require_sentence(f"{label} refuses", sentence)


def _require_no_traceback(label: str, ending: _Ending) -> None:
    error = ending.traceback
    if error is not None:
        place = find_place(error)
        at_place = f" at {place}" if place else ""
        raise AssertionError(
            f"{label} ends with a traceback{at_place}: {describe_exception(error)}; raise an error of lit_align.errors "
            "with a sentence"
        ) from error
