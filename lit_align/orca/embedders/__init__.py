"""How data of a modality become tokens of a body: one file each, and nothing else to edit."""

from lit_align.orca.embedders.base import Embedder
from lit_align.orca.modalities import InputSpec
from lit_align.orca.types import BodySpec, Embedded

__all__ = ["BodySpec", "Embedded", "Embedder", "InputSpec"]
