"""Scores for responses: one file each, and nothing else to edit."""

from lit_align.rewards.base import Reward
from lit_align.types import Group, Scores

__all__ = ["Group", "Reward", "Scores"]
