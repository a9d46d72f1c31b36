"""``lit-align chat``: chat with a model in the terminal, or with two side by side; piped, an answer to each line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Generator
from contextlib import ExitStack, closing, suppress
from itertools import zip_longest
from pathlib import Path

from lit_align.cli.chat_speakers import RUN_SETTINGS, UNTRAINED, Speaker, load_speakers, note
from lit_align.compat.peft import ignore_deprecated_name
from lit_align.errors import ConfigError, ModelError
from lit_align.registry import closest_name

COMMANDS = {
    "/help": "lists these commands",
    "/reset": "forgets the conversation",
    "/as": "NAME lets that one answer alone, of several; without a name all answer",
    "/system": "TEXT sets the system prompt; without a text there is none",
    "/quit": "leaves, as Ctrl-D does",
}
KEYS = "Ctrl-C stops an answer"


def run(arguments: list[str]) -> None:
    """Answer each line of input until there are no more.

    Raises:
        ConfigError: if no model is named.
        ModelError: if a model or an adapter cannot be loaded.
    """
    options = parse_options(arguments)
    ignore_deprecated_name()
    speakers = load_speakers(options)
    names = " and ".join(speaker.name for speaker in speakers)
    note(f"{names}; /help lists the commands, {KEYS}")
    with suppress(ImportError):
        import readline  # noqa: F401 - input() then has the arrow keys
    system, seed = options.system, 0
    answering = speakers
    while (line := _read_line()) is not None:
        command, _, argument = line.partition(" ")
        if command == "/quit":
            return
        if command == "/help":
            _print_help()
        elif command == "/system":
            system = argument.strip()
        elif command == "/as":
            answering = _choose_speakers(speakers, argument.strip()) or answering
        elif command == "/reset":
            for speaker in speakers:
                speaker.turns = []
        elif command.startswith("/"):
            closest = closest_name(command, COMMANDS)
            hint = f"did you mean {closest}?" if closest else "/help lists the commands"
            note(f"there is no {command}; {hint}")
        elif line:
            _answer(answering, system, line, options.temperature, seed)
            seed += 1  # the same question gets another answer


def _choose_speakers(speakers: list[Speaker], name: str) -> list[Speaker]:
    """The speakers of that name, or all without one; none if there is no such name, which is said."""
    chosen = [speaker for speaker in speakers if name in ("", speaker.name)]
    if chosen:
        note(f"{' and '.join(speaker.name for speaker in chosen)} now")
    else:
        names = ", ".join(speaker.name for speaker in speakers)
        note(f"nobody here is called {name}; there are {names}")
    return chosen


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """The options; ``--base`` without a model stands for ``--compare base``.

    The folder after a bare ``--base`` is the run, since no model is the folder of a run.

    Raises:
        ConfigError: if they name two models in the place of one.
    """
    options = _parser().parse_args(arguments)
    if options.run and options.run_option:
        raise ConfigError(
            f"the run is {options.run} and {options.run_option}; give one, and the other with --compare"
        )
    options.run = options.run or options.run_option
    if options.base and (Path(options.base) / RUN_SETTINGS).is_file() and not options.run:
        options.base, options.run = UNTRAINED, options.base
    if options.run and options.adapter:
        raise ConfigError(
            f"--adapter is {options.adapter} and the run {options.run}; give one, and the other with --compare"
        )
    if options.base == UNTRAINED:
        if options.compare:
            raise ConfigError(
                f"--base compares with the untrained model and --compare with {options.compare}; leave one out"
            )
        options.base, options.compare = None, UNTRAINED
    return options


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {command:<10}{text}" for command, text in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        "lit-align chat",
        allow_abbrev=False,
        description="Chat with a model, or with two side by side.",
        epilog="\n".join(["in the chat:", *lines, f"  {KEYS}"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_models(parser)
    _add_people(parser)
    parser.add_argument("--system", metavar="TEXT", default="", help="system prompt")
    parser.add_argument(
        "--attributes",
        metavar="NAME=VALUE,...",
        help="attributes of the answers, such as verbosity=1,helpfulness=4, of an adapter that was trained with "
        "RatedDemonstrations; those that are not named have their median",
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="of the sampling; 0 is greedy"
    )
    parser.add_argument("--max_new_tokens", type=int, default=256, help="longest answer")
    return parser


def _add_models(parser: argparse.ArgumentParser) -> None:
    """Add the options that say who answers."""
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="the numbered folder of a run: its newest adapter, even while it trains; or a checkpoint or an adapter",
    )
    parser.add_argument("--run", dest="run_option", metavar="RUN", help="the same as RUN")
    parser.add_argument(
        "--adapter", metavar="FOLDER", help="an adapter, such as adapter/ in the folder of a run"
    )
    parser.add_argument(
        "--base",
        metavar="MODEL",
        nargs="?",
        const=UNTRAINED,
        help="beside RUN, the untrained model answers too; with a name, the model that answers, or that RUN's adapter "
        "is put on; if not given, what the adapter was trained on",
    )
    parser.add_argument(
        "--quantization",
        choices=["nf4", "none"],
        help="of the base; if not given, the run's or nf4",
    )
    parser.add_argument(
        "--chat_template",
        metavar="FILE",
        help="Jinja, or chatml; if not given, that of the run or the adapter, or the base's",
    )
    parser.add_argument(
        "--template_kwargs",
        metavar="JSON",
        type=json.loads,
        help="arguments of the template, such as '{\"enable_thinking\": false}'; if not given, the run's or adapter's",
    )


def _add_people(parser: argparse.ArgumentParser) -> None:
    """Add the options that let several answer side by side."""
    parser.add_argument(
        "--as",
        dest="people",
        metavar="NAME[=RUN]",
        action="append",
        default=[],
        help="whose adapter answers, several times for several people side by side on one base: that of the newest run "
        "in the folder of that name, or of RUN; beside a RUN of all, if one is given",
    )
    parser.add_argument(
        "--people",
        dest="people_folder",
        metavar="FOLDER",
        default="runs/personal",
        help="folder with a folder of runs for each person, for --as; runs/personal if not given",
    )
    parser.add_argument(
        "--compare",
        metavar="RUN",
        help="another run or adapter on the same base, which answers side by side; base for the untrained model",
    )


def _print_help() -> None:
    for command, text in COMMANDS.items():
        note(f"{command:<10}{text}")
    note(KEYS)


def _answer(speakers: list[Speaker], system: str, line: str, temperature: float, seed: int) -> None:
    """Print what each speaker answers to a line; Ctrl-C stops the answer."""
    with ExitStack() as stack, suppress(KeyboardInterrupt):
        answers = [speaker.answer(system, line, temperature, seed) for speaker in speakers]
        for answer in answers:
            stack.enter_context(closing(answer))
        try:
            if len(answers) == 1:
                _print_answer(answers[0])
            else:
                _print_side_by_side(speakers, answers)
        except ModelError as error:
            note(str(error))


def _read_line() -> str | None:
    """A stripped line of input; None when there are no more."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except KeyboardInterrupt:
            print()
        except EOFError:
            note("")
            return None


def _print_answer(answers: Generator[str]) -> None:
    printed = 0
    try:
        for answer in answers:
            print(answer[printed:], end="", flush=True)
            printed = len(answer)
    finally:
        print(flush=True)


def _print_side_by_side(speakers: list[Speaker], answers: list[Generator[str]]) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Column, Table
    from rich.text import Text

    texts = [""] * len(answers)
    with Live(console=Console()) as live:  # as wide as the terminal is now
        for update in zip_longest(*answers):
            for index, text in enumerate(update):
                texts[index] = text or texts[index]
            columns = [Column(Text(speaker.name), ratio=1, overflow="fold") for speaker in speakers]
            table = Table(*columns, expand=True)
            table.add_row(*map(Text, texts))
            live.update(table)
    if not sys.stdout.isatty():  # where rich leaves out the end of the last line
        print()
