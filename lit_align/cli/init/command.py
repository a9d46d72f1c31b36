"""``lit-align init``: list the tasks, or write a YAML or a package to start one with."""

from __future__ import annotations

from lit_align.cli.init.options import check_options, init_parser
from lit_align.cli.tasks import find_task, list_tasks
from lit_align.errors import ConfigError


def run(arguments: list[str]) -> None:
    """List the tasks, or write the files of one.

    Raises:
        ConfigError: if an option is missing or cannot be used.
        UnknownName: if there is no such task.
        DataError: if the task cannot learn from the data.
        ModelError: if there is no such base.
    """
    options = init_parser().parse_args(arguments)
    if options.task is None:
        print(list_tasks())
        return
    task = find_task(options.task)
    if options.name and task.name != "plugin":
        raise ConfigError(f"{options.name!r} is no option of init {task.name}; files follow --data")
    if task.name == "plugin":
        from lit_align.cli.init.plugin import write_plugin

        write_plugin(options.name, options.kind)
    elif task.config:
        check_options(task, options)
        from lit_align.cli.init.training import write_config

        write_config(task, options)
    else:
        from lit_align.cli.init.other import write_other

        write_other(task, options)
