"""Does the data module carry the labels that the objective learns from?"""

from __future__ import annotations

from typing import Any

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
            f"{type(data).__name__} has {data_kind}; change one of the two"
        )
