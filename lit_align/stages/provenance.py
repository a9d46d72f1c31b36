"""What a run's adapter is: the settings that a checkpoint must match, and what its provenance tells."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

from lit_align.chat.plain_text import PLAIN_TEXT
from lit_align.models.adapter_files import lora_settings
from lit_align.models.adapter_set import AdapterSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def adapter_identity(
    adapters: AdapterSet,
    tokenizer: PreTrainedTokenizerBase,
    base_path: str,
    init_adapter: str | None,
) -> dict[str, Any]:
    """Base, LoRA shape and chat template; with ``init_adapter`` the shape is that adapter's."""
    lora = lora_settings(adapters, adapters.trained_roles[0])
    template = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16]
    return {
        **{f"lora.{name}": value for name, value in lora.items()},
        "base.path": base_path,
        "init_adapter": init_adapter,
        "chat_template (hash)": template,
    }


def prompt_kind(trainer: Trainer | None) -> str | None:
    """Whether the training prompts are turns of a chat or plain text; None without data."""
    data = getattr(trainer, "datamodule", None)
    trees = None if data is None else data.trees.get("train")
    if not trees:
        return None
    return PLAIN_TEXT if isinstance(trees[0].group.prompt, str) else "chat"
