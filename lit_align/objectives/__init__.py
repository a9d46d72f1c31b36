"""Losses over log-probabilities: one file each, and nothing else to edit."""

from lit_align.batches import Logps
from lit_align.objectives.base import Objective, PairwiseObjective, SupervisedObjective

__all__ = ["Logps", "Objective", "PairwiseObjective", "SupervisedObjective"]
