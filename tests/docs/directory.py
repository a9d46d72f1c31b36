"""The directory of plugin packages, from their ``pyproject.toml``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "plugins"


def page() -> str:
    """As Markdown."""
    lines = [
        "# Directory of plugins\n",
        "Packages in `plugins/`, each installed with `pip install plugins/NAME` and listed by `lit-align plugins`. "
        "Some are useful, all are examples to copy.\n",
        "| package | | hooks |",
        "|---|---|---|",
    ]
    for path in sorted(FOLDER.glob("lit-align-*/pyproject.toml")):
        project = tomllib.loads(path.read_text())["project"]
        sources = "".join(file.read_text() for file in path.parent.rglob("*.py"))
        hooks = sorted(set(re.findall(r"^def (register_\w+)", sources, re.MULTILINE)))
        cells = (
            f"`{project['name']}`",
            project["description"],
            ", ".join(f"`{hook}`" for hook in hooks),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
