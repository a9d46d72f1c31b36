"""Data that are not text: one kind of file reader each, and what they are read into."""

from lit_align.orca.modalities.base import (
    Examples,
    InputSpec,
    LabelledBatch,
    Modality,
    TargetSpec,
    collate,
)

__all__ = ["Examples", "InputSpec", "LabelledBatch", "Modality", "TargetSpec", "collate"]
