"""The page of scripts behind the measured claims, with the day and the machine of their figures."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def page() -> str:
    """A row for each script of ``tests/proofs`` and ``tests/benchmarks`` that has figures beside it, as Markdown."""
    rows = [
        "# Scripts and figures\n",
        "Each script measures again what its file of figures says. The day is that of the figures' last change; the "
        "machine, where a file does not name another, had two CPU cores and no GPU.\n",
        "| script | what it shows | figures | day | machine |",
        "|---|---|---|---|---|",
    ]
    figures = {path.stem: path for path in sorted((ROOT / "tests/proofs").glob("*.json"))}
    scripts = [*(ROOT / "tests/proofs").glob("*.py"), *(ROOT / "tests/benchmarks").glob("*.py")]
    for script in sorted(scripts):
        if script.stem in figures:
            path = figures[script.stem]
            name = script.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            line = (ast.get_docstring(ast.parse(script.read_text())) or "").split("\n")[0]
            cells = (f"`python -m {name}`", line, f"`{path.name}`", _day(path), _machine(path))
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _day(path: Path) -> str:
    """When a file was changed last, by git; empty without git."""
    command = ["git", "log", "-1", "--format=%as", "--", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _machine(path: Path) -> str:
    figures: Any = json.loads(path.read_text())
    machine = figures.get("machine") if isinstance(figures, dict) else None
    if isinstance(machine, dict):
        machine = ", ".join(
            str(value) for value in machine.values() if isinstance(value, str | int)
        )
    return str(machine or "")[:120]
