"""``lit-align plugins``: what is installed, who brought it, and what went wrong."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from lit_align.errors import UnknownName
from lit_align.objectives import family_name
from lit_align.plugins import Plugins, load_plugins


def run(arguments: list[str]) -> None:
    """Print a table, or JSON; with a room, what it holds."""
    parser = argparse.ArgumentParser(
        "lit-align plugins", description="What is installed, and who brought it."
    )
    parser.add_argument(
        "room", nargs="?", help="a room, such as objectives; without it, the plugins themselves"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    asked = parser.parse_args(arguments)
    found = load_plugins()
    columns, rows = _room(found, asked.room) if asked.room else _plugins(found)
    if asked.json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    if (
        asked.room
    ):  # names stay whole, so that they can be copied; the rest goes below what a part is
        told = [dict(zip(columns, row, strict=True)) for row in rows]
        columns = ["name", "what"]
        rows = [[one.pop("name"), f"{one.pop('what')}\n[dim]{_listed(one)}[/dim]"] for one in told]
    table = Table(show_lines=bool(asked.room))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=bool(asked.room) and column == "name")
    for row in rows:
        table.add_row(
            *(
                "" if cell is None else cell if isinstance(cell, str) else _flat(cell)
                for cell in row
            )
        )
    Console().print(table)


def _plugins(found: Plugins) -> tuple[list[str], list[list[object]]]:
    rows = [asdict(plugin) for plugin in found.found]
    columns = ["name", "version", "hooks", "provides", "error"]
    return columns, [[row[column] for column in columns] for row in rows]


def _room(found: Plugins, room: str) -> tuple[list[str], list[list[object]]]:
    try:
        registry = {
            hook.removeprefix("register_"): registry for hook, registry in found.registries.items()
        }[room]
    except KeyError:
        rooms = ", ".join(hook.removeprefix("register_") for hook in found.registries)
        raise UnknownName(f"no room is called {room!r}; there are {rooms}") from None
    entries = [(name, entry) for name in registry for entry in registry.entries(name)]
    facts = ["family", "label_kind", "reference"] if room == "objectives" else []
    rows: list[list[object]] = [
        [name, *(of_objective(entry.cls)[fact] for fact in facts), entry.plugin, what(entry.cls)]
        for name, entry in entries
    ]
    return ["name", *facts, "from", "what"], rows


def of_objective(cls: type) -> dict[str, str]:
    """Its family, the label it takes, and whether it needs a reference model at its default settings."""
    try:
        needs = "yes" if cls().needs_reference else "no"
    except TypeError:  # what it is made of decides
        needs = "as its parts"
    return {
        "family": family_name(cls),
        "label_kind": getattr(cls, "label_kind", ""),
        "reference": needs,
    }


def what(cls: type) -> str:
    """The first line of a class's docstring."""
    return (cls.__doc__ or "").strip().split("\n")[0]


def _listed(facts: dict[str, object]) -> str:
    return " · ".join(f"{name}: {value}" for name, value in facts.items())


def _flat(cell: object) -> str:
    if isinstance(cell, dict):
        return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in cell.items())
    return ", ".join(map(str, cell)) if isinstance(cell, list) else str(cell)
