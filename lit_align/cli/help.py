"""``--help`` of the commands that train: the settings of the stage, its objective and its data before the trainer's."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

from lit_align.cli.objective_switch import objective_of
from lit_align.cli.packaged_configs import COMMANDS
from lit_align.cli.sources import class_in, read_sources
from lit_align.cli.training import InspectCLI, LitAlignCLI, run_cli

HELP_OPTIONS = ("-h", "--help")

OBJECTIVES = {
    "SFT": "CrossEntropy",
    "Preference": "DPO",
    "RewardModel": "BradleyTerry",
    "ProcessRewardModel": "StepCrossEntropy",
    "RL": "PPO",
}
DATA = {
    "SFT": "Demonstrations",
    "Preference": "Comparisons",
    "RewardModel": "Comparisons",
    "ProcessRewardModel": "Steps",
    "RL": "Prompts",
}
"""What is shown for a stage, unless the command line names others."""

INSPECT_OPTIONS = """\
options of inspect:
  -c FILE        YAML of a run, of which nothing is trained: what became of each row, what is learned, the memory.
  --card GIB     GiB of the GPU that inspect predicts for (default: 24).
  --cards N      also the time of a step, by phase, on N cards: its parts are measured on this machine's GPU or CPU.
  --sampler served --sampler_speed TOKENS
                 the time with an engine that samples so many tokens a second.
  --response_tokens N, --link GB
                 tokens of a response (max_new_tokens), GB/s between cards (10), for the time.
  --safe         which code the YAML would run; imports none of it.
  --rounds RUN   what an on-line run sampled, and how it was labelled; needs no YAML.

All settings of fit can follow, to inspect what they would change."""


class Named(NamedTuple):
    """The classes of a run whose settings are shown; an empty name is not shown."""

    stage: str
    objective: str
    data: str


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for the settings of a command that trains.

    Example:
        >>> asks_for_help(["fit", "--help"]), asks_for_help(["fit", "--model.help", "SFT"])
        (True, False)
    """
    is_help = any(word in HELP_OPTIONS for word in arguments)
    return is_help and arguments[0] in COMMANDS


def print_help(arguments: Sequence[str]) -> None:
    """Print the usage of a command, then the settings of the classes that are named, then those of the trainer.

    Args:
        arguments: of the command line, with the command first; ``-c`` and ``--model`` choose what is shown.
    """
    command = arguments[0]
    named = find_classes(arguments)
    general = _printed([command if command != "inspect" else "fit", "--help"], command)
    usage = f"usage: lit-align {command} [-c FILE] [options]"
    general = re.sub(r"\Ausage: .*?(?=\n\n)", usage, general, count=1, flags=re.DOTALL)
    if command == "inspect":
        general = re.sub(
            r"\n\n.*?(?=\n\noptions:)", f"\n\n{INSPECT_OPTIONS}", general, count=1, flags=re.S
        )
    heading = re.search(r"\n\n(?=\S[^\n]*:\n  --trainer)", general)
    start = heading.start() if heading else len(general)
    print("\n\n".join([general[:start], *_sections(command, named), general[start:].lstrip("\n")]))


def find_classes(arguments: Sequence[str]) -> Named:
    """The stage, the objective and the data that files and options name, or usual ones.

    Example:
        >>> find_classes(["fit", "--model", "SFT", "--help"])
        Named(stage='SFT', objective='CrossEntropy', data='Demonstrations')
    """
    stage = objective = data = ""
    for _, settings in read_sources([word for word in arguments if word not in HELP_OPTIONS]):
        stage = class_in(settings.get("model")) or stage
        data = class_in(settings.get("data")) or data
        objective = objective_of(settings)[0] or objective
    stage = stage or "Preference"
    name = stage.rpartition(".")[2]
    return Named(stage, objective or OBJECTIVES.get(name, ""), data or DATA.get(name, ""))


def _sections(command: str, named: Named) -> list[str]:
    """A part of the help for each class."""
    stage, objective, data = named
    helps = {
        f"Settings of the stage {stage}; for another one: lit-align {command} --model SFT --help": (
            [f"--model.help={stage}"]
        ),
        f"Settings of the objective {objective}; for another one: --model {stage} --model.objective NAME --help": (
            [f"--model={stage}", f"--model.objective.help={objective}"] if objective else []
        ),
        f"Settings of the data {data}; for others: --data NAME --help": (
            [f"--data.help={data}"] if data else []
        ),
    }
    sections = []
    for title, options in helps.items():
        if options:
            text = _printed(["fit", *options], command).partition("\n\n")[2]  # without its usage
            sections.append(f"{title}\n\n{text.strip()}")
    return sections


def _printed(arguments: list[str], command: str) -> str:
    """What the parser prints for these arguments before it exits."""
    cli = InspectCLI if command == "inspect" else LitAlignCLI
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        run_cli(cli, arguments)
    return printed.getvalue().rstrip()
