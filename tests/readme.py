"""The generated parts of README.md; ``cog -r README.md`` writes them, ``cog --check`` and a test compare them."""

import ast
from pathlib import Path

from lit_align.plugins import load_plugins

ROOT = Path(__file__).parents[1]


def first_line(cls: type) -> str:
    """What a class says of itself."""
    return (cls.__doc__ or "").strip().split("\n")[0]


def room(name: str) -> str:
    """Table of what a room of the core holds."""
    found = load_plugins()
    registry = {"objectives": found.objectives, "formats": found.formats}[name]
    rows = [f"| `{key}` | {first_line(registry[key])} |" for key in registry]
    return "\n".join([f"| {name} | |", "|---|---|", *rows])


def tree() -> str:
    """Every file of the package with the first sentence of its docstring."""
    lines = []
    for path in sorted((ROOT / "lit_align").rglob("*.py"), key=lambda p: (p.parent != ROOT / "lit_align", p.parts)):
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        phrase = doc.split("\n")[0].split(" (")[0].rstrip(".").replace("``", "")
        lines.append(f"{path.relative_to(ROOT).as_posix():<40} {phrase}")
    return "\n".join(["```text", *lines, "```"])
