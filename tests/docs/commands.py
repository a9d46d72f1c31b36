"""Reference of the options of every command that does not read a run's YAML: what its ``--help`` says."""

from __future__ import annotations

import contextlib
import io
import os
from functools import cache
from unittest import mock

COMMANDS = (
    *("init", "chat", "runs", "report", "export", "judge", "campaign", "label", "label add"),
    *("label extend", "label end", "label reopen", "label remove", "label import"),
    *("label export", "label forget", "label backup"),
    *("evaluate suite", "evaluate reward-bench", "evaluate win-rate", "evaluate tournament"),
    *("evaluate frontier", "evaluate personal", "evaluate cross-modal"),
)
"""Those of ``fit``, ``validate``, ``test``, ``predict`` and ``inspect`` are the settings of a run."""

WIDTH = "80"  # what fits beside the table of contents


@cache  # it starts a parser for each command, and several tests read it
def page() -> str:
    """A section for each command, as Markdown."""
    sections = [
        "# Options of commands\n",
        "What `lit-align COMMAND --help` prints. `fit`, `validate`, `test`, `predict` and `inspect` take the "
        "[settings of a run](run.md).\n",
    ]
    for command in COMMANDS:
        sections.append(f"## {command}\n\n```text\n{help_of(command)}```\n")
    return "\n".join(sections)


def help_of(command: str) -> str:
    """The help of a command."""
    from lit_align.__main__ import main

    text = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": WIDTH}),
        contextlib.redirect_stdout(text),
        contextlib.suppress(SystemExit),
    ):
        main([*command.split(), "--help"])
    return text.getvalue()
