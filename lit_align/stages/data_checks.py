"""Does the data module carry the labels that the objective learns from?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_align.data import datamodules, labelled_steps
from lit_align.data.trained_prompts import overlap_count, overlap_notice, seen_prompts
from lit_align.errors import ConfigError
from lit_align.objectives import Objective
from lit_align.types import LabelKind, Tree


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


class Trained(Protocol):
    """What may have been trained on prompts: a reward, or a source of feedback."""

    def trained_prompts(self) -> frozenset[str]:
        """Hashes of these prompts."""


def tell_of_trained_prompts(judge: Trained, trees: Sequence[Tree]) -> frozenset[str]:
    """Say on how many of the prompts the reward model that will score responses was trained; warn if they are many.

    Args:
        judge: scores or labels the responses.
        trees: the training prompts.

    Returns:
        The hashes of all prompts that the reward model was trained on; none where nobody knows.
    """
    trained = judge.trained_prompts()
    if not trained:
        return trained
    is_seen = seen_prompts((tree.group.prompt for tree in trees), trained)
    notice = overlap_notice(is_seen)
    if notice:
        rank_zero_warn(notice)
    else:
        rank_zero_info(overlap_count(is_seen))
    return trained


def _suitable(label_kind: LabelKind) -> str:
    """The data modules of this package whose rows have such labels."""
    names = []
    for cls in [*vars(datamodules).values(), *vars(labelled_steps).values()]:
        if isinstance(cls, type) and getattr(cls, "label_kind", None) == label_kind:
            names.append(cls.__name__)
    return " or ".join(names) or "a data module with these"
