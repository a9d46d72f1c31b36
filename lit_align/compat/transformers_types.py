"""Types of transformers for annotations.

The parser of settings evaluates the annotations of each class that a YAML names, and the import of a model's class
takes two seconds: a mistake in a YAML is to be reported before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["PreTrainedConfig", "PreTrainedModel", "PreTrainedTokenizerBase"]

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
else:
    PreTrainedConfig = PreTrainedModel = PreTrainedTokenizerBase = Any
