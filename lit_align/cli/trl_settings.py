"""Settings of TRL whose place here depends on the stage and on the value: ``loss_type`` and ``beta``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from lit_align.cli.sources import class_in, read_sources
from lit_align.coming_from_losses import loss_here
from lit_align.coming_from_trl import translation
from lit_align.errors import ConfigError
from lit_align.renamed_settings import flatten_block

NAMES = ("loss_type", "beta")
KINDS = {"Preference": "DPO", "SFT": "SFT", "RL": "GRPO"}
"""Stages, and the kind of run over there."""


def refuse_trl_settings(arguments: Sequence[str]) -> None:
    """Refuse these names at the top and among the settings of the model.

    Args:
        arguments: of the command line.

    Raises:
        ConfigError: with the setting here, of this stage and for this value.
    """
    stage, written = "", dict[str, Any]()
    for _, settings in read_sources(arguments):
        model = settings.get("model")
        stage = class_in(model) or stage
        written |= {name: value for name, value in _named(settings, model) if name in NAMES}
    kind = KINDS.get(stage.rpartition(".")[2], "")
    for name, value in written.items() if kind else ():
        value = _read(value)
        loss = loss_here(value, kind == "GRPO") if name == "loss_type" else None
        if loss:
            shown = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else value
            raise ConfigError(f"TRL's {name} {shown} is {loss} here; write that instead")
        raise ConfigError(f"unknown key {name!r}; TRL's {name} is {translation(name, kind)} here")


def _named(settings: dict[str, Any], model: Any) -> Iterator[tuple[str, Any]]:
    yield from settings.items()
    if isinstance(model, dict):
        yield from flatten_block(model)


def _read(value: Any) -> Any:
    """A value of the command line as a YAML has it."""
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return value
