"""The page of scripts behind the measured claims, with the day and the machine of their figures."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MACHINE = "two CPU cores, no GPU"


def page() -> str:
    """A row for each script of ``tests/proofs`` and ``tests/benchmarks`` that has figures beside it, as Markdown."""
    rows = [
        "# Scripts and figures\n",
        "Each script measures again what its file of figures says. The day is that of the figures' last change; "
        f"where a file names no machine, it was {MACHINE}.\n",
        "| script | what it shows | figures | day | machine |",
        "|---|---|---|---|---|",
    ]
    files = sorted((ROOT / "tests/proofs").glob("*.*"))
    figures = {path.stem: path for path in files if path.suffix in (".json", ".txt")}
    scripts = [*(ROOT / "tests/proofs").glob("*.py"), *(ROOT / "tests/benchmarks").glob("*.py")]
    for script in sorted(scripts):
        if script.stem in figures:
            path = figures[script.stem]
            name = script.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            line = (ast.get_docstring(ast.parse(script.read_text())) or "").split("\n")[0]
            cells = (f"`python -m {name}`", line, f"`{path.name}`", *day_and_machine(path))
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def day_and_machine(path: Path) -> tuple[str, str]:
    """When a file of figures was changed last, by git, and where it was measured; without git no day.

    Args:
        path: the file.
    """
    command = ["git", "log", "-1", "--format=%as", "--", str(path)]
    day = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return day, _machine(path)


def _machine(path: Path) -> str:
    figures: Any = json.loads(path.read_text()) if path.suffix == ".json" else {}
    machine = figures.get("machine") if isinstance(figures, dict) else None
    if not isinstance(machine, dict):
        return str(machine or MACHINE)
    words = [f"{machine['cores']} cores" if "cores" in machine else MACHINE]
    for name, value in machine.items():
        if isinstance(value, str):
            words.append(value if name in ("cpu", "processor", "gpu") else f"{name} {value}")
    return ", ".join(words)
