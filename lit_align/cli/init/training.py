"""Write the YAML of a task that trains on text."""

from __future__ import annotations

import argparse

from lit_align.cli.init.base_config import read_base
from lit_align.cli.init.options import (
    column_options,
    command_line,
    output_path,
    print_next,
    write_new,
)
from lit_align.cli.init.rows import describe_files
from lit_align.cli.init.settings import (
    as_comment,
    set_data,
    set_reward,
    set_sizes,
    start_settings,
    to_yaml,
)
from lit_align.cli.init.sizes import choose_sizes, default_card
from lit_align.cli.tasks import Task, objective_settings
from lit_align.data.column_fates import ColumnSettings
from lit_align.plugin_packages import where_to_get

VALIDATION = "# validation: FILE, of rows that are not in train, to see whether more than these rows is learned"


def write_config(task: Task, options: argparse.Namespace) -> None:
    """Choose the settings, print why, and write them.

    Args:
        task: that trains on text.
        options: of the command line.

    Raises:
        ConfigError: if nothing fits on the GPU, or the reward cannot be used.
        DataError: if the task cannot learn from the data.
        ModelError: if there is no such base.
    """
    path = output_path(options, task)
    about_columns = column_options(options)
    columns = ColumnSettings(
        about_columns.get("columns", {}), about_columns.get("ignore_columns", ())
    )
    layout = describe_files(options.data, task, columns)
    stops = [layout.stop_text]
    if options.validation:
        stops.append(describe_files(options.validation, task, columns).stop_text)
    objective = objective_settings(task, options.objective) if options.objective else None
    settings = start_settings(task, options.base, objective)
    set_data(settings, options.data, options.validation or ())
    settings["data"]["init_args"] |= about_columns
    lines = layout.text.split("\n") + list(filter(None, stops))
    if task.needs_reward:
        lines.append(set_reward(settings, task, options.reward, layout.columns))
    base = read_base(options.base, options.size)
    if base.text:
        lines.append(base.text)
    if base.lacks_template and task.label_kind == "demonstrations":
        settings["model"]["init_args"]["chat_template"] = "chatml"
        lines.append("chat template chatml: the base has none of its own")
    card, card_text = (options.card, f"{options.card:g} GiB") if options.card else default_card()
    lines.append(f"GPU: {card_text}")
    sizes = choose_sizes(settings, base.config, card, layout.num_rows)
    set_sizes(settings, sizes)
    comments = {**sizes.reasons, "objective": _objective_text(settings)}
    print("\n".join(lines))
    for name, reason in comments.items():
        value = getattr(sizes, name, None)
        print(f"{name}{'' if value is None else f' {value}'}: {reason}")
    header = [f"lit-align fit -c {path}", f"Written by: {command_line(task, options)}", *lines]
    text = as_comment(header) + to_yaml(settings, comments)
    if not options.validation:
        text += f"    {VALIDATION}\n"
    write_new(path, text)
    print(f"\nWrote {path}.")
    print_next([f"lit-align inspect -c {path} --card {card:g}", f"lit-align fit -c {path}"])


def _objective_text(settings: dict[str, object]) -> str:
    from lit_align.cli.plugins import first_line
    from lit_align.plugins import load_plugins

    model = settings["model"]["init_args"]  # type: ignore[index]
    objective = model["objective"]
    name = objective["class_path"] if isinstance(objective, dict) else objective
    objectives = load_plugins().objectives
    return f"{name}: {first_line(objectives[name]) if name in objectives else where_to_get(name)}"
