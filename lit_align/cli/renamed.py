"""Refuse old names of settings and classes on the command line and in its YAML files, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from lit_align.cli.sources import read_sources
from lit_align.errors import ConfigError
from lit_align.renamed_settings import RenamedSettings


def refuse_renamed_arguments(arguments: Sequence[str], command: str = "") -> None:
    """Look through files and options in the order in which the parser reads them.

    Args:
        arguments: of the command line.
        command: whose own settings they are, such as ``lit-align judge``.

    Raises:
        ConfigError: with a sentence for each old name.
    """
    renamed = RenamedSettings(command)
    for _, settings in read_sources(arguments):
        renamed.add(settings)
    if renamed.sentences:
        raise ConfigError("\n".join(renamed.sentences))
