"""Refuse settings that an objective would take over from another one.

jsonargparse keeps what an earlier YAML set for the old class where the new one has a setting of that name: with
``beta: 0.1`` for DPO underneath, SimPO would silently train with 0.1 instead of its own 2.0.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from lit_align.cli.sources import class_in, read_sources
from lit_align.errors import ConfigError
from lit_align.plugins import load_plugins
from lit_align.renamed_settings import flatten_block


def refuse_inherited(arguments: Sequence[str]) -> None:
    """Follow the objective through files and options in the order in which the parser reads them.

    Raises:
        ConfigError: if a setting was written for another objective than the one that would get it.
    """
    objective = ""
    written: dict[str, tuple[str, str, Any]] = {}  # setting -> (source, objective, value)
    for source, settings in read_sources(arguments):
        name, init_args = objective_of(settings)
        objective = (name or objective).rpartition(".")[2]
        for key, value in init_args.items():
            written[key] = (source, objective, value)
    if objective not in load_plugins().objectives:
        return
    parameters = inspect.signature(load_plugins().objectives[objective]).parameters
    for key, (source, former_objective, value) in written.items():
        if former_objective != objective and key in parameters:
            raise ConfigError(
                f"{key} {value} was written for {former_objective} in {source}, and {objective} would take it over; "
                f"state {key} together with {objective}, as configs/objectives/{objective}.yaml does"
            )


def objective_of(settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class of ``model.objective`` and its settings, as far as they are written in one source."""
    model = settings.get("model")
    if not isinstance(model, dict):
        return "", {}
    objective = dict(flatten_block(model)).get("objective")
    init_args = dict(flatten_block(objective)) if isinstance(objective, dict) else {}
    return class_in(objective), init_args
