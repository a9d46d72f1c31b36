"""How inputs of a modality become tokens of a backbone: one file each, and nothing else to edit."""

from lit_align.orca.embedders.base import Embedder
from lit_align.orca.modalities import InputSpec
from lit_align.orca.types import BackboneSpec, Embedded

__all__ = ["BackboneSpec", "Embedded", "Embedder", "InputSpec"]
