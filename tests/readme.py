"""The generated parts of README.md; ``cog -r README.md`` writes them, ``cog --check`` and a test compare them."""

import ast
import json
import textwrap
from pathlib import Path

from lit_align.cli.plugins import describe_objective
from lit_align.plugins import load_plugins
from tests import objective_registry
from tests.benchmarks.report import notes

ROOT = Path(__file__).parents[1]


def first_line(cls: type) -> str:
    """What a class says of itself."""
    return (cls.__doc__ or "").strip().split("\n")[0]


def room(name: str) -> str:
    """Table of what a room of the core holds."""
    found = load_plugins()
    registry = found.registries[f"register_{name}"]
    rows = [f"| `{key}` | {first_line(registry[key])} |" for key in registry]
    return "\n".join([f"| {name} | |", "|---|---|", *rows])


def named(name: str) -> str:
    """What a room of the core holds, as a sentence."""
    return f"There are {', '.join(f'`{key}`' for key in load_plugins().registries[f'register_{name}'])}."


def objectives() -> str:
    """Table of every objective, packaged ones included."""
    rows = []
    for name, cls in sorted(
        objective_registry.classes().items(),
        key=lambda item: (item[1].__module__.split(".")[0], item[0]),
    ):
        package = cls.__module__.split(".")[0].replace("lit_align_zoo", "lit-align-zoo")
        family, label_kind, reference = describe_objective(cls).values()
        rows.append(
            f"| `{name}` | {family} | {label_kind} | {reference} | {first_line(cls)} | {package} |"
        )
    head = "| objective | family | takes | reference? | | package |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def rooms() -> str:
    """Every folder of the package with the first sentence of its docstring."""
    lines = []
    for path in sorted((ROOT / "lit_align").glob("*/__init__.py")):
        phrase = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
        lines.append(f"| `{path.parent.relative_to(ROOT).as_posix()}/` | {phrase} |")
    return "\n".join(["| room | |", "|---|---|", *lines])


def against_trl(path: str) -> str:
    """The figures of ``tests.benchmarks.vs_trl``, a row for each setting, and what was checked before measuring."""
    found = json.loads((ROOT / path).read_text())
    rows = []
    for name, setting in found["settings"].items():
        rungs = setting["rungs"]
        least = {rung: f"{of['least']:.2f}" for rung, of in rungs.items()}
        ratios = [
            f"{rungs[theirs]['least'] / rungs[ours]['least']:.2f}" if ours in rungs else ""
            for theirs, ours in (("trl", "trees"), ("trl_precomputed", "trees_precomputed"))
        ]
        memory = f"{rungs['trees']['peak'] / rungs['trl']['peak']:.2f}"
        cells = [least["trl"], least.get("rows", ""), least["trees"], *ratios, memory]
        rows.append(
            f"| **{name}**: {setting['title']}; {setting['pairs']} pairs a step | {' | '.join(cells)} |"
        )
    head = "| CPU s a step | TRL | ours, padded rows | ours, trees | times TRL | both precomputed | memory, of TRL's |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows, "", *notes(found)])


def demo(path: str) -> str:
    """Figures and answers of a run of the demo, from its ``summary.json``."""
    found = json.loads((ROOT / path).read_text())
    lines = [f"{'held-out figure':<28}{'before':>8}{'after':>8}"]
    for name, before in found["before"].items():
        cells = [
            f"{value:.2f}" if isinstance(value, float) else str(value)
            for value in (before, found["after"][name])
        ]
        lines.append(f"{name:<28}{cells[0]:>8}{cells[1]:>8}")
    for row in found["answers"][:: max(1, len(found["answers"]) // 3)][:3]:
        lines += ["", row["question"]]
        for when in ("before", "after"):
            told = f"{when + ':':<8}{' '.join(row[when].split())}"
            lines += textwrap.wrap(told, 116, initial_indent="  ", subsequent_indent=" " * 10)
    return "\n".join(["```text", *lines, "```"])
