"""From rewards of rollouts to advantages: one file each, and nothing else to edit."""

from lit_align.advantages.base import Advantage, Rollouts, whitened

__all__ = ["Advantage", "Rollouts", "whitened"]
