"""Does the data module carry the labels that the objective learns from?"""

from __future__ import annotations

from typing import Any

from lit_align.data import datamodules
from lit_align.errors import ConfigError
from lit_align.objectives import Objective
from lit_align.types import LabelKind


def check_label_kind(objective: Objective, data: Any) -> None:
    """Refuse a data module whose labels the objective cannot learn from.

    Raises:
        ConfigError: naming both.
    """
    data_kind = getattr(data, "label_kind", objective.label_kind)
    if data_kind not in (objective.label_kind, LabelKind.RESPONSES):
        raise ConfigError(
            f"{type(objective).__name__} learns from {objective.label_kind}, and the data module "
            f"{type(data).__name__} has {data_kind}; set data.class_path to {_suitable(objective.label_kind)}, or "
            f"choose an objective over {data_kind}"
        )


def _suitable(label_kind: LabelKind) -> str:
    """The data modules of this package whose rows have such labels."""
    names = []
    for cls in vars(datamodules).values():
        if isinstance(cls, type) and getattr(cls, "label_kind", None) == label_kind:
            names.append(cls.__name__)
    return " or ".join(names) or "a data module with these"
