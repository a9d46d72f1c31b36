"""The tables of the page on proofs, made from the files of figures in ``tests/proofs``, and where each comes from."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.docs import proofs
from tests.docs.claims import learning, optima, rewards, systems

PROOFS = Path(__file__).parents[2] / "proofs"
TABLES = {**optima.TABLES, **learning.TABLES, **rewards.TABLES, **systems.TABLES}
ENDINGS = (".json", ".txt")
SOURCE = re.compile(r"\*Measured by `python -m ([\w.]+)`: `([\w.]+)`\.\*")


def claim(name: str) -> str:
    """A table of the figures behind a claim, and the line that says which script measured them.

    Args:
        name: the table's name; up to a comma it is that of the file of figures.
    """
    stem = name.partition(",")[0]
    file = next(
        PROOFS / f"{stem}{ending}" for ending in ENDINGS if (PROOFS / f"{stem}{ending}").exists()
    )
    text = file.read_text()
    figures = json.loads(text) if file.suffix == ".json" else text
    return f"{TABLES[name](figures)}\n\n{source(file.name)}"


def source(file: str) -> str:
    """Which script measured a file of figures; the site adds the day and the machine.

    Args:
        file: its name in ``tests/proofs``.
    """
    stem = Path(file).stem
    folder = "proofs" if (PROOFS / f"{stem}.py").exists() else "benchmarks"
    return f"*Measured by `python -m tests.{folder}.{stem}`: `{file}`.*"


def with_days(text: str) -> str:
    """The page on proofs, with the day and the machine of its figures after each script.

    Args:
        text: its Markdown.
    """

    def dated(line: re.Match[str]) -> str:
        script, file = line.groups()
        day, machine = proofs.day_and_machine(PROOFS / file)
        return f"*Measured by `python -m {script}`{day and f' on {day}'}, {machine}; figures in `{file}`.*"

    return SOURCE.sub(dated, text)
