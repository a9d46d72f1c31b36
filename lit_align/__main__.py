"""``python -m lit_align``: finds the command before anything heavy is imported."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")

BARS_OFF = (
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "HF_DATASETS_DISABLE_PROGRESS_BARS",
    "TQDM_DISABLE",
)
"""Variables that switch off the bars of huggingface_hub and transformers, of datasets, and of whatever uses tqdm."""

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables of CUDA's allocator, read when torch is imported; the second is an older name."""

HELP = """\
lit-align: align language models with feedback, on one GPU, from one YAML and one command.

  lit-align init [TASK]        write a YAML for your model, data and GPU; without a task: what there is to start with
  lit-align fit -c FILE        train what the YAML describes (-c twice to overlay, --key value to override)
  lit-align validate -c FILE   metrics on the validation data
  lit-align test -c FILE       the same, under the name test
  lit-align predict -c FILE    answer the validation prompts, as JSONL in the run folder
  lit-align inspect -c FILE    what became of every row, and the tokens that are trained on; trains nothing
  lit-align inspect --safe -c FILE   which code a stranger's YAML would run; imports none of it
  lit-align inspect --rounds RUN   what an on-line run sampled, and how it was labelled
  lit-align export RUN FOLDER  what a run has trained, as an adapter or (--merge) as a whole model
  lit-align report RUN         the page of a run, report.html: figures, curves, answers, data, settings
  lit-align runs FOLDER        runs beside each other: settings that differ, main figures, which is best
  lit-align judge --feedback NAME --data FILE    labels from a judge, a reward or a server, as JSONL in the run folder
  lit-align evaluate suite --runs base RUN -c FILE   one table of tasks for several runs; evaluate alone lists all
  lit-align evaluate reward-bench --reward NAME --data FILE   how often a judge prefers the better response
  lit-align evaluate win-rate --a RUN --b RUN --feedback NAME --data FILE   how often one model beats another
  lit-align evaluate cross-modal --tasks FILE   whether ORCA's alignment helps on data that are not text
  lit-align chat RUN           chat with what was trained; --base: beside the untrained model (chat --help)
  lit-align label --tasks FILE a web page where people compare answers (label --help)
  lit-align campaign -c FILE   rounds of answers, labels, a reward model and a policy (campaign --help)
  lit-align plugins [KIND]     what is installed: objectives, formats, rewards, advantages, feedback, commands
  lit-align env                versions and hardware, to paste into a bug report
  lit-align completion bash    a script by which bash or zsh completes commands, tasks and configs

  lit-align fit --help                     every setting; with -c FILE or --model NAME, of its classes first
  lit-align fit --model.help Preference    ... of a stage
  lit-align fit --data.help Comparisons    ... of data
  lit-align fit --model Preference --model.objective.help DPO    ... of an objective

  lit-align fit --task dpo --base MODEL --data FILE    without a YAML: a task's packaged config, base and data

Where the folder has no FILE of that name, -c FILE is a packaged config: tiny/dpo, sft, objectives/SimPO.
A YAML names classes, so it is a program: do not run a stranger's.
Start with: lit-align init
"""


def main(arguments: list[str] | None = None) -> None:
    """Run ``lit-align``; help and version answer at once, and what is installed is listed without Lightning.

    Raises:
        SystemExit: with a sentence that says what is wrong and what to do.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    _hide_bars_in_files()
    _let_segments_grow()
    try:
        _run(arguments)
        if sys.stdout is not None:  # as it is under a launcher that closes it
            sys.stdout.flush()
    except (OSError, SystemExit) as error:
        from lit_align.cli.closed_pipe import leave_quietly, reader_is_gone

        if reader_is_gone(error):  # such as head, which has seen enough
            leave_quietly()
        raise


def _run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
    elif arguments[0] == "--version":
        from lit_align import __version__

        print(f"lit-align {__version__}")
    elif arguments[0] == "env":  # also where a package is too old
        from lit_align.cli import env

        env.run(arguments[1:])
    else:
        from lit_align.cli.arguments import expand_arguments
        from lit_align.cli.first_mistakes import refuse_first_mistakes

        expanded = _call(expand_arguments, arguments)
        _call(refuse_first_mistakes, expanded)
        _run_command(expanded)


def _run_command(arguments: list[str]) -> None:
    from lit_align.environment import warn_of_misspelled_variables
    from lit_align.installed_versions import check_versions

    warn_of_misspelled_variables()
    # a sentence where a package is too old, rather than where a part of it is missed
    _call(check_versions, None)
    run = _command_without_trainer(arguments)
    if run:
        _call(run, arguments[1:])
    else:
        from lit_align.compat.light_imports import import_lightning

        import_lightning()
        from lit_align.cli.main import main as run_with_lightning

        run_with_lightning(arguments)


def _hide_bars_in_files() -> None:
    """Let other libraries draw no progress bars where nobody watches: in a log file each refresh is text."""
    if not sys.stderr.isatty():
        for name in BARS_OFF:
            os.environ.setdefault(name, "1")


def _let_segments_grow() -> None:
    """Let CUDA's allocator extend its blocks, unless the user has set it: steps of many lengths leave gaps else."""
    if not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def _command_without_trainer(arguments: list[str]) -> Callable[[list[str]], object] | None:
    """The function of a command that needs no trainer; None for the others, and for what is no command."""
    command = arguments[0]
    if command == "init":
        from lit_align.cli.init import command as init

        return init.run
    if command == "chat":
        from lit_align.cli import chat

        return chat.run
    if command == "export":
        from lit_align.cli import export

        return export.run
    if command == "report":
        from lit_align.cli import report

        return report.run
    if command == "runs":
        from lit_align.cli import runs

        return runs.run
    if command == "plugins":
        from lit_align.cli import plugins

        return plugins.run
    if command == "completion":
        from lit_align.cli import completion

        return completion.run
    if arguments[:2] == ["inspect", "--rounds"]:
        from lit_align.cli import inspect_rounds

        return inspect_rounds.run
    if command == "inspect" and "--safe" in arguments:
        from lit_align.cli import inspect_safe

        return inspect_safe.run
    return _plugin_command(command)


def _plugin_command(command: str) -> Callable[[list[str]], object] | None:
    """The function of a command that a plugin adds, if it does."""
    from lit_align.plugins import CORE_COMMANDS, load_plugins

    if command in CORE_COMMANDS or command.startswith("-"):
        return None
    commands = load_plugins().commands
    return commands[command].function if command in commands else None


def _call(function: Callable[[Argument], Result], arguments: Argument) -> Result:
    """Call a function of the command line; an error of ours is one line on stderr."""
    from lit_align.errors import LitAlignError, ModelError

    try:
        return function(arguments)
    except LitAlignError as error:
        print(f"lit-align: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, ModelError) else 2)


if __name__ == "__main__":
    main()
