"""Names of losses elsewhere and of classes of another kind, where a class is needed: what to write instead."""

from __future__ import annotations

from collections.abc import Iterable

from lit_align.coming_from_losses import LOSSES, POLICY_LOSSES
from lit_align.plugins import load_plugins

PLACES = {
    "objective": "model.objective",
    "reward": "model.reward",
    "advantage": "model.advantage",
    "format": "data.format",
    "feedback": "data.feedback",
    "sampler": "model.sampler",
    "judge": "feedback.model",
}
"""Kinds of classes, and a setting that takes each."""


def what_else(key: str, name: str, fitting: Iterable[str]) -> str:
    """What a name means that no class has: a class of another kind, or a loss of TRL; empty if it means nothing known.

    Args:
        key: of the setting, such as ``objective``.
        name: as it was written.
        fitting: names of the classes that the setting may be.

    Example:
        >>> what_else("objective", "sigmoid", ["DPO"]), what_else("objective", "dpo", ["DPO"])
        ("TRL's sigmoid is DPO", '')
        >>> what_else("objective", "rloo", ["DPO"]).partition(":")[0]
        'RLOO is an advantage'
    """
    if any(candidate.lower() == name.lower() for candidate in fitting):
        return ""
    for registry in load_plugins().registries.values():
        for candidate in registry:
            if candidate.lower() == name.lower():
                return f"{candidate} is {_kind_and_place(key, candidate, registry.kind)}"
    text = LOSSES.get(name) or POLICY_LOSSES.get(name) if key == "objective" else None
    return f"TRL's {name} is {text}" if text else ""


def of_another_kind(key: str, name: str) -> str:
    """What a class is that does not fit, and the setting that takes it; empty if it is of no kind that plugins add.

    Args:
        key: of the setting.
        name: of the class.

    Example:
        >>> of_another_kind("objective", "GRPO")
        'it is an advantage: write model.advantage: GRPO in the stage RL, with an objective such as PPO'
    """
    registries = load_plugins().registries.values()
    kind = next((registry.kind for registry in registries if name in registry), "")
    return f"it is {_kind_and_place(key, name, kind)}" if kind else ""


def _kind_and_place(key: str, name: str, kind: str) -> str:
    if kind == "advantage" and key == "objective":
        return f"an advantage: write model.advantage: {name} in the stage RL, with an objective such as PPO"
    article = "an" if kind[0] in "aeiou" else "a"
    place = PLACES.get(kind)
    return f"{article} {kind}{f', which {place} takes' if place else ''}"
