"""Losses over log-probabilities, one file each."""

from lit_align.objectives.base import (
    FAMILIES,
    ImplicitRewardObjective,
    Objective,
    PairwiseObjective,
    PolicyObjective,
    RankedObjective,
    RatedObjective,
    StepwiseObjective,
    SupervisedObjective,
    UnpairedObjective,
    family_name,
)
from lit_align.types import DivergenceFrom, Logps, PerTokenLogps, PolicyTokens

__all__ = [
    "FAMILIES",
    "DivergenceFrom",
    "ImplicitRewardObjective",
    "Logps",
    "Objective",
    "PairwiseObjective",
    "PerTokenLogps",
    "PolicyObjective",
    "PolicyTokens",
    "RankedObjective",
    "RatedObjective",
    "StepwiseObjective",
    "SupervisedObjective",
    "UnpairedObjective",
    "family_name",
]
