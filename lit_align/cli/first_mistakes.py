"""Mistakes that show in the first words of a command: refused before torch and Lightning are imported."""

from __future__ import annotations

from collections.abc import Sequence

from lit_align.cli.command_mistakes import explain_command, explain_missing
from lit_align.cli.packaged_configs import COMMANDS
from lit_align.cli.setting_homes import RUN_SETTINGS, advice_without_imports
from lit_align.cli.sources import read_sources
from lit_align.cli.trl_settings import refuse_trl_settings
from lit_align.errors import ConfigError
from lit_align.installed_plugins import installed_plugins
from lit_align.plugins import CORE_COMMANDS, EXTENSION_COMMANDS, load_plugins

OF_INSPECT = ("card", "cards", "sampler", "sampler_speed", "response_tokens", "link")

ACCEPTED = (*RUN_SETTINGS, "answers", *OF_INSPECT, "seed_everything")
"""Keys at the top level of a YAML that the parser of some command knows, those without a description included."""


def refuse_first_mistakes(arguments: Sequence[str]) -> None:
    """Refuse a command that does not exist, an unknown key at the top of a YAML, and a run without model and data.

    What cannot be judged without imports passes, and is judged later by the parser.

    Args:
        arguments: of the command line, with the command first and the paths of configs in place of their names.

    Raises:
        ConfigError: with the sentence that the parser's refusal would lead to as well.
    """
    command = arguments[0]
    _refuse_command(command)
    if command in COMMANDS and not any("help" in argument for argument in arguments):
        _refuse_settings(arguments)


def _refuse_command(command: str) -> None:
    """A plugin may add commands, which are known once it is imported: then the parser refuses."""
    names = [*CORE_COMMANDS, *EXTENSION_COMMANDS]
    has_plugins = bool(load_plugins.cache_info().currsize or installed_plugins())
    if command not in names and not command.startswith("-") and not has_plugins:
        raise ConfigError(explain_command(command, names))


def _refuse_settings(arguments: Sequence[str]) -> None:
    if len(arguments) == 1:
        raise ConfigError(explain_missing(["data", "model"]))
    refuse_trl_settings(arguments)
    for source, settings in read_sources(arguments):
        for key in () if source.startswith("-") else settings:
            hint = None if key in ACCEPTED else advice_without_imports(str(key))
            if hint:
                raise ConfigError(f"unknown key {key!r}{hint}")
