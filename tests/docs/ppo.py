"""The page of PPO's implementation details: those that matter for language models, and the list of 37 for games."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import lit_align.rl

FILE = Path(__file__).parents[2] / "lit_align/docs/ppo_37.yaml"
ROOT = Path(__file__).parents[2]


def ours() -> list[tuple[str, str, str]]:
    """What, where and the test, from the docstring of ``lit_align.rl``."""
    lines = (lit_align.rl.__doc__ or "").splitlines()
    rows = []
    for line in lines:
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) == 3 and cells[2].startswith("test_"):
            rows.append((cells[0], cells[1].replace("``", "`"), cells[2]))
    return rows


def the_37() -> dict[str, list[dict[str, str]]]:
    """Group -> details, each with ``detail`` and either ``here`` and ``test``, or ``because``."""
    return yaml.safe_load(FILE.read_text())


def find_test(start: str) -> str | None:
    """The file and the whole name of a test, from the start of its name."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        match = re.search(rf"^def ({start}\w*)", path.read_text(), re.MULTILINE)
        if match:
            return f"{path.relative_to(ROOT)}::{match[1]}"
    return None


def page() -> str:
    """As Markdown."""
    lines = [
        "# Implementation details of PPO\n",
        "## For language models\n",
        "After [Huang et al., 2024](https://arxiv.org/abs/2403.17031): where each detail is, and the test that "
        "shows it.\n",
        "| detail | where | test |",
        "|---|---|---|",
    ]
    lines += [f"| {what} | {where} | `{find_test(test)}` |" for what, where, test in ours()]
    lines += [
        "\n## The list of 37\n",
        "[The 37 implementation details of PPO]"
        "(https://iclr-blog-track.github.io/2022/03/25/ppo-implementation-details/) "
        "(Huang et al., 2022) are about games and robots. This is what became of each here.\n",
    ]
    number = 0
    for group, details in the_37().items():
        lines += [f"### {group}\n", "| | detail | here | test |", "|---|---|---|---|"]
        for detail in details:
            number += 1
            test = f"`{find_test(detail['test'])}`" if "test" in detail else ""
            here = detail.get("here") or f"does not apply: {detail['because']}"
            lines.append(f"| {number} | {detail['detail']} | {here} | {test} |")
        lines.append("")
    return "\n".join(lines)
