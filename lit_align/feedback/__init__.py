"""Who says which response is better: one file each, and nothing else to edit."""

from lit_align.batches import Group
from lit_align.feedback.base import Feedback, Opinion

__all__ = ["Feedback", "Group", "Opinion"]
