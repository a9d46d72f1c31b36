"""Advantage estimators: one file each."""

from lit_align.advantages.base import Advantage, Rollouts, masked_whiten

__all__ = ["Advantage", "Rollouts", "masked_whiten"]
