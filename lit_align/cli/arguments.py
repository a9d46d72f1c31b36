"""Short forms on the command line, written out before anything heavy is imported: ``-c NAME`` and ``--task``."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lit_align.cli.packaged_configs import COMMANDS, resolve_configs
from lit_align.cli.tasks import TASKS, find_task
from lit_align.errors import ConfigError
from lit_align.package_files import packaged_folder

TASK_OPTIONS = ("--task", "--base", "--data")


def expand_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--task`` as the settings that it stands for, and with the paths of packaged configs.

    Args:
        arguments: of the command line, with the command first.

    Raises:
        ConfigError: if there is no such config, or a part of what ``--task`` needs is missing.
        UnknownName: if there is no such task.

    Example:
        >>> expand_arguments("fit --task kto --base tiny --data a.csv --save_every 9".split())[2:]
        ['--model.base.path=tiny', '--model.base.dtype=auto', '--trainer.accelerator=auto', '--data.train=a.csv',
        '--data.validation=null', '--save_every', '9']
    """
    if not arguments or arguments[0] not in COMMANDS:
        return list(arguments)
    options, others = _split_task(arguments[1:])
    if "--task" in options:
        arguments = [arguments[0], *_task_settings(options), *others]
    elif "--base" in options:
        raise ConfigError("--base goes with --task; write --model.base.path, or add a --task")
    return resolve_configs(arguments)


def _split_task(arguments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The values after each option of ``TASK_OPTIONS``, and all other arguments in their order."""
    options: dict[str, list[str]] = {}
    others: list[str] = []
    target = others
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if name in TASK_OPTIONS:
            target = options.setdefault(name, [])
            if separator:
                target.append(value)
            continue
        if argument.startswith("-"):
            target = others
        target.append(argument)
    return options, others


def _task_settings(options: dict[str, list[str]]) -> list[str]:
    """The packaged config of a task, and the settings that differ from it."""
    for name in TASK_OPTIONS:
        if not options.get(name):
            missing = "a name" if name == "--task" else f"{name} too"
            raise ConfigError(
                f"--task needs {missing}, as in --task dpo --base Qwen/Qwen3-8B --data my.csv"
            )
        if name != "--data" and len(options[name]) > 1:
            raise ConfigError(f"{name} is given {' and '.join(options[name])}; give it once")
    (name,), (base,), files = (options[name] for name in TASK_OPTIONS)
    task = find_task(name, TASKS)
    settings = [
        f"-c={packaged_folder('configs') / task.config}.yaml",
        f"--model.base.path={base}",
        "--model.base.dtype=auto",
        "--trainer.accelerator=auto",
        f"--data.train={files[0] if len(files) == 1 else json.dumps(files)}",
    ]
    if "validation" in task.settings()["data"]["init_args"]:
        settings.append("--data.validation=null")
    return settings
