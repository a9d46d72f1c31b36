"""What is looked for in the files and options of every command before a parser reads them."""

from __future__ import annotations

from collections.abc import Sequence

from lit_align.cli.class_blocks import refuse_misplaced_settings
from lit_align.cli.renamed import refuse_renamed_arguments
from lit_align.cli.yaml_files import refuse_broken_files


def refuse_written_mistakes(arguments: Sequence[str], command: str = "") -> None:
    """Refuse files that cannot be read, old names, and settings that are not under their class.

    Args:
        arguments: of the command line.
        command: whose own settings they are, such as ``lit-align judge``.

    Raises:
        ConfigError: with what to write instead.
    """
    refuse_broken_files(arguments)
    refuse_renamed_arguments(arguments, command)
    refuse_misplaced_settings(arguments)
