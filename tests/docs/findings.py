"""The page of findings: the comment at the head of each script in ``findings/``."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[2] / "findings"


def page() -> str:
    """As Markdown: a section for each script, in the order of their names."""
    parts = [
        "# Findings about other libraries\n",
        "What surprised us in the libraries that we build on, with versions. Each is a script in `findings/` that "
        "makes an environment with these versions and shows it; it ends without an error as long as that is so.\n",
    ]
    for path in sorted(FOLDER.glob("*.sh")):
        title = path.stem.replace("-", " ")
        parts.append(
            f"## {title[0].upper()}{title[1:]}\n\n{describe(path)}\n\n`sh findings/{path.name}`\n"
        )
    return "\n".join(parts)


def describe(path: Path) -> str:
    """The comment at the head of a script; its paragraphs begin at versions, Expected, Seen and Source."""
    lines = []
    for line in path.read_text().splitlines()[1:]:
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    versions, *rest = lines
    paragraphs = [f"*{versions}*"]
    for line in rest:
        if line.startswith(("Expected", "Seen", "Source")) or len(paragraphs) == 1:
            paragraphs.append(line)
        else:
            paragraphs[-1] += f" {line}"
    return "\n\n".join(paragraphs)
