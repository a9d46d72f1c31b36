"""How data of a modality become tokens of a body: one file each, and nothing else to edit."""

from lit_align.batches import BodySpec, Embedded
from lit_align.data.modalities import InputSpec
from lit_align.orca.embedders.base import Embedder

__all__ = ["BodySpec", "Embedded", "Embedder", "InputSpec"]
