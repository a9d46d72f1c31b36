"""Feedback sources, which label responses: one file each, and nothing else to edit."""

from lit_align.feedback.base import Feedback, FeedbackResult
from lit_align.types import Group

__all__ = ["Feedback", "FeedbackResult", "Group"]
