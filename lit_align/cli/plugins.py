"""``lit-align plugins``: what is installed, which plugin provides it, and what failed."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lit_align.errors import UnknownName
from lit_align.objectives import family_name
from lit_align.plugins import Plugins, load_plugins

PLUGIN_COLUMNS = ("name", "version", "hooks", "provides", "error")

Row = dict[str, Any]


def run(arguments: list[str]) -> None:
    """Print a table, or JSON: of all plugins, or of everything of one kind."""
    parser = argparse.ArgumentParser(
        "lit-align plugins",
        allow_abbrev=False,
        description="What is installed, and which plugin provides it.",
    )
    parser.add_argument(
        "kind", nargs="?", help="such as objectives; the plugins themselves if left out"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    plugins = load_plugins()
    rows = list_kind(plugins, options.kind) if options.kind else list_plugins(plugins)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows, is_kind=bool(options.kind))


def list_plugins(plugins: Plugins) -> list[Row]:
    """A row for each plugin."""
    return [
        {column: getattr(plugin, column) for column in PLUGIN_COLUMNS} for plugin in plugins.plugins
    ]


def list_kind(plugins: Plugins, kind: str) -> list[Row]:
    """A row for each class of a kind, or for each command.

    Raises:
        UnknownName: if there is no such kind.
    """
    registries = {}
    for hook, registry in plugins.registries.items():
        registries[hook.removeprefix("register_")] = registry
    if kind == "commands":
        commands = plugins.commands.values()
        return [
            {"name": command.name, "from": command.plugin, "what": command.help}
            for command in commands
        ]
    if kind not in registries:
        kinds = ", ".join([*registries, "commands"])
        raise UnknownName(f"no kind of plugin is called {kind!r}; there are {kinds}")
    rows = []
    for name in registries[kind]:
        for entry in registries[kind].entries(name):
            facts = describe_objective(entry.cls) if kind == "objectives" else {}
            summary = first_line(entry.cls)
            rows.append({"name": name, **facts, "from": entry.plugin, "what": summary})
    return rows


def describe_objective(cls: type) -> dict[str, str]:
    """Its family, the label kind, and whether it needs a reference model at its default settings."""
    try:
        reference = "yes" if cls().needs_reference else "no"
    except TypeError:  # it has no defaults: its parts decide
        reference = "as its parts"
    return {
        "family": family_name(cls),
        "label_kind": getattr(cls, "label_kind", ""),
        "reference": reference,
    }


def first_line(cls: type) -> str:
    """The first line of a class's docstring."""
    return (cls.__doc__ or "").strip().split("\n")[0]


def _print_table(rows: list[Row], is_kind: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    if is_kind:  # names stay whole, so that they can be copied
        rows = [_folded(row) for row in rows]
    table = Table(show_lines=is_kind)
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold", no_wrap=is_kind and column == "name")
    for row in rows:
        table.add_row(*map(_format_cell, row.values()))
    Console().print(table)


def _folded(row: Row) -> Row:
    """A row with two columns; all but the name and the description goes under the description."""
    facts = [f"{key}: {value}" for key, value in row.items() if key not in ("name", "what")]
    return {"name": row["name"], "what": f"{row['what']}\n[dim]{' · '.join(facts)}[/dim]"}


def _format_cell(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, dict):
        return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in cell.items())
    return ", ".join(map(str, cell)) if isinstance(cell, list) else str(cell)
