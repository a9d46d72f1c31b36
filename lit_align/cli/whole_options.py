"""Parsers that take an option by its whole name alone: an abbreviation is a mistake, of which a run would not tell."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser


class WholeOptions(ArgumentParser):
    """A parser of a command; those of the classes in its settings are of the same type."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})


class WholeRunOptions(LightningArgumentParser):
    """The same for LightningCLI."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})
