"""What the pages show as code: blocks, commands and options, so that tests can run or parse each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "lit_align/docs/pages").glob("*.md")))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN = re.compile(r"(?<! -->\n)^```bash\n.*?^```", re.MULTILINE | re.DOTALL)
"""Blocks whose commands ``tests/test_readme.py`` runs: those without a reason above them."""

INDENTED = re.compile(r"(?<=\n\n)(?: {4}[^\n]*\n)+")
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
NAMED = re.compile(r"# (\w+\.yaml)\n")


class Block(NamedTuple):
    """A block of code.

    Args:
        page: the page's file without its ending.
        language: as the fence names it; empty for an indented block.
        text: what it shows.
    """

    page: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    """Every block of the written pages, fenced or indented."""
    for path in PAGES:
        text = path.read_text()
        for language, shown in FENCE.findall(text):
            yield Block(path.stem, language, shown)
        for shown in INDENTED.findall(FENCE.sub("", text)):
            yield Block(path.stem, "", shown)


def lines() -> Iterator[str]:
    """Every command of a shell that a block shows and no test runs, with what it goes on with on further lines."""
    run = "".join(RUN.findall("\n".join(path.read_text() for path in PAGES)))
    for block in blocks():
        if block.text in run or block.language not in ("bash", ""):
            continue
        text = re.sub(r"\\\n", " ", block.text)
        for line in text.splitlines():
            command = re.sub(r"\s#.*$", "", line).strip()
            if re.match(r"(?:[A-Z_]+=\S* )*(?:lit-align|pip|make|docker|torchrun) ", command):
                yield " ".join(command.split())


def commands() -> list[str]:
    """Every ``lit-align`` command, of blocks and within sentences, without what stands before it."""
    shown = []
    for line in lines():
        line = re.sub(
            r"^(?:torchrun .* lit_align|docker run .* lit-align-cpu) ", "lit-align ", line
        )
        _, program, arguments = line.partition("lit-align ")
        if program and not line.startswith("pip"):
            shown.append(program + arguments)
    for path in PAGES:
        for code in INLINE.findall(FENCE.sub("", path.read_text())):
            if code.startswith("lit-align "):
                shown.append(code)
    return list(dict.fromkeys(shown))


def options() -> dict[str, str]:
    """Every option that stands alone within a sentence, and the page that has it."""
    named = {}
    for path in PAGES:
        for code in INLINE.findall(FENCE.sub("", path.read_text())):
            match = re.match(r"--([a-zA-Z][\w.-]*)", code)
            if match:
                named.setdefault(match[1].rstrip("."), path.stem)
    return named


def named_yaml() -> dict[str, str]:
    """The runs that have the name of a file in their first line."""
    runs = {}
    for block in blocks():
        match = NAMED.match(block.text)
        if block.language == "yaml" and match:
            runs[match[1]] = block.text
    return runs


def unnamed_yaml() -> list[Block]:
    """Parts of runs: blocks of YAML without the name of a file."""
    return [
        block for block in blocks() if block.language == "yaml" and not block.text.startswith("# ")
    ]
