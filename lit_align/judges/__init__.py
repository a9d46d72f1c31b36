"""Language models as judges: in this process, or behind an OpenAI-compatible server."""

from lit_align.judges.base import JudgeModel, Reply

__all__ = ["JudgeModel", "Reply"]
