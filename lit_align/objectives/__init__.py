"""Losses over log-probabilities: one file each, and nothing else to edit."""

from lit_align.objectives.base import (
    Objective,
    PairwiseObjective,
    PolicyObjective,
    RankedObjective,
    RatedObjective,
    SupervisedObjective,
    UnpairedObjective,
)
from lit_align.types import Logps, PerTokenLogps, PolicyTokens

__all__ = [
    "Logps",
    "Objective",
    "PairwiseObjective",
    "PerTokenLogps",
    "PolicyObjective",
    "PolicyTokens",
    "RankedObjective",
    "RatedObjective",
    "SupervisedObjective",
    "UnpairedObjective",
]
