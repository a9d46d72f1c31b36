"""What a run's adapter is: the settings that a checkpoint must match, and what its provenance tells."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

from lit_align.chat.plain_text import PLAIN_TEXT
from lit_align.errors import ModelError
from lit_align.models.adapter_files import lora_settings
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.adapters import check_adapter, read_provenance, saved_template
from lit_align.models.base_content import base_content
from lit_align.models.load import Base, template_hash, tokenizer_fingerprint

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

LIBRARIES = ("torch", "transformers", "peft", "lightning", "bitsandbytes")
ELSEWHERE = ("objective", "base", "chat_template", "template_kwargs", "settings")
"""Settings that provenance holds under names of their own."""

COUNTS = ("name", "rows", "fates", "tokens", "scored")
"""What a card shows of a ledger."""


def adapter_identity(
    adapters: AdapterSet,
    tokenizer: PreTrainedTokenizerBase,
    base_path: str,
    init_adapter: str | None,
) -> dict[str, Any]:
    """Base, LoRA shape and chat template; with ``init_adapter`` the shape is that adapter's."""
    lora = lora_settings(adapters, adapters.trained_roles[0])
    return {
        **{f"lora.{name}": value for name, value in lora.items()},
        "base.path": base_path,
        "init_adapter": init_adapter,
        "chat_template (hash)": template_hash(tokenizer),
    }


def prompt_kind(trainer: Trainer | None) -> str | None:
    """Whether the training prompts are turns of a chat or plain text; None without data."""
    data = getattr(trainer, "datamodule", None)
    trees = None if data is None else data.trees.get("train")
    if not trees:
        return None
    return PLAIN_TEXT if isinstance(trees[0].group.prompt, str) else "chat"


def data_provenance(trainer: Trainer | None) -> dict[str, Any]:
    """What the data module says of itself, besides counts; empty without one."""
    describe = getattr(getattr(trainer, "datamodule", None), "provenance", dict)
    return dict(describe())


def data_counts(trainer: Trainer | None) -> dict[str, dict[str, Any]]:
    """The counts of each split's ledger; empty without data."""
    ledgers = getattr(getattr(trainer, "datamodule", None), "ledgers", {})
    return {
        split: {name: getattr(ledger, name) for name in COUNTS} for split, ledger in ledgers.items()
    }


def ledger_counts(ledgers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The counts that a card shows, of the content of ``ledger.json``."""
    return {split: {name: ledger[name] for name in COUNTS} for split, ledger in ledgers.items()}


def base_and_tokenizer(
    base: Base,
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None,
    template_kwargs: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """How the base and the tokenizer are loaded, and hashes of what was loaded."""
    return {
        "loads": asdict(base),
        "base_content": base_content(base.path, base.revision),
        "chat_template": chat_template,
        "template_kwargs": None if template_kwargs is None else dict(template_kwargs),
        "template": template_hash(tokenizer),
        "has_template": bool(tokenizer.chat_template),
        "tokenizer": tokenizer_fingerprint(tokenizer),
    }


def plain_settings(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's settings that provenance does not hold elsewhere."""
    return {
        name: value
        for name, value in hparams.items()
        if not name.startswith("_") and name not in ELSEWHERE
    }


def software_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that compute."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **versions}


def check_init_adapter(folder: str, base: Base, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse an adapter of another base, or one that was trained under another chat template.

    Raises:
        ModelError: naming both.
    """
    check_adapter(folder, base.path, base.revision)
    provenance = read_provenance(folder)
    saved, current = provenance.get("template"), template_hash(tokenizer)
    if saved in (None, current) or provenance.get("prompts") == PLAIN_TEXT:
        return
    name = provenance.get("chat_template") or "the tokenizer's own"
    raise ModelError(
        f"the adapter in {folder!r} was trained under another chat template ({name}, hash {saved}) than this stage has "
        f"(hash {current}); {_same_template(folder)}, or merge it with `lit-align export --merge` and give "
        "the merged model as the base"
    )


def _same_template(folder: str) -> str:
    """The settings that give the adapter's template."""
    template, kwargs = saved_template(folder)
    remedy = f"set model.chat_template to {'null' if template is None else template}"
    return f"{remedy} and model.template_kwargs to {kwargs}" if kwargs else remedy
