"""The glossary of logged metrics: ``lit_align/docs/metrics.yaml`` as a page, and whether a name is in it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml

FILE = Path(__file__).parents[2] / "lit_align/docs/metrics.yaml"
PREFIXES = ("eval_", "test_")


@cache
def sections() -> dict[str, dict[str, str]]:
    """Heading -> name -> meaning; a part of a name in braces stands for any text."""
    return yaml.safe_load(FILE.read_text())


@cache
def _patterns() -> list[re.Pattern[str]]:
    patterns = []
    for names in sections().values():
        for name in names:
            parts = re.split(r"\{\w+\}", name)
            patterns.append(re.compile(".+".join(map(re.escape, parts))))
    return patterns


def unknown(names: Iterable[str]) -> list[str]:
    """Those of the names that the glossary does not have."""
    missing = []
    for name in names:
        plain = name
        for prefix in PREFIXES:
            plain = plain.removeprefix(prefix)
        if not any(pattern.fullmatch(plain) for pattern in _patterns()):
            missing.append(name)
    return missing


def unknown_in(folder: Path) -> list[str]:
    """Columns of each ``metrics.csv`` below a folder that the glossary does not have."""
    names: set[str] = set()
    for path in folder.rglob("metrics.csv"):
        with path.open() as file:
            names |= set(next(csv.reader(file), []))
    return unknown(sorted(names))


def anchor(name: str) -> str:
    """Where the page has a metric.

    Example:
        >>> anchor("objective/kl"), anchor("rewards/{name}")
        ('objective-kl', 'rewards-name')
    """
    return re.sub(r"[^\w]+", "-", name).strip("-")


def page() -> str:
    """As Markdown."""
    lines = [
        "# Every logged metric\n",
        "`metrics.csv` of a run has these columns, and TensorBoard and other loggers the same names. Validation puts "
        "`eval_` before a name, `lit-align test` puts `test_`. Words in braces stand for a name. A link to one is "
        "`metrics.html#objective-kl`, with - for /.\n",
    ]
    for heading, names in sections().items():
        lines += [f"## {heading}\n", "| metric | |", "|---|---|"]
        lines += [
            f'| <span id="{anchor(name)}">`{name}`</span> | {meaning.replace("|", chr(92) + "|")} |'
            for name, meaning in names.items()
        ]
        lines.append("")
    return "\n".join(lines)
