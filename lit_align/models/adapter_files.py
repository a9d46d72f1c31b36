"""Save, load and attach the adapters of an `AdapterSet`, as PEFT folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.errors import ModelError
from lit_align.jsonl import read_json
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.adapters import read_adapter, write_adapter, written_targets
from lit_align.models.card import adapter_card
from lit_align.models.heads import HEAD_FILE, ScoreHead
from lit_align.models.stop_ids import stop_ids

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

CARD_FILE = "README.md"


def lora_settings(adapters: AdapterSet, role: str) -> dict[str, Any]:
    """A role's r, alpha, targets and, where it has some, parameters; those of ``init_adapter`` if it started from one.

    Raises:
        ModelError: if the role has no adapter.
    """
    config = adapters.lora_config(role)
    settings = {"r": config.r, "alpha": config.lora_alpha, "targets": written_targets(config)}
    if config.target_parameters:
        settings["target_parameters"] = sorted(config.target_parameters)
    for variant in ("use_rslora", "use_dora"):
        if getattr(config, variant):
            settings[variant] = True
    return settings


def save_adapter(
    adapters: AdapterSet,
    folder: Path,
    role: str = "policy",
    provenance: dict[str, Any] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    write_more: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write a role's adapter as a PEFT folder with ``provenance.json``, and with its score head if it has one.

    An existing folder is replaced as a whole.

    Args:
        adapters: the base and its adapters.
        folder: where to.
        role: the adapter.
        provenance: of the adapter.
        tokenizer: with the chat template of the training, for others to load; with it come the tokens that end a turn
            and a card.
        write_more: called with the folder before it is complete, to write further files with a tokenizer's.

    Raises:
        ModelError: if the role has no adapter.
    """
    from transformers import GenerationConfig

    config = adapters.portable_config(role)
    record = {**(provenance or {}), "role": role, "lora": lora_settings(adapters, role)}
    if adapters.needs_whole_base(role):
        record["needs_whole_base"] = True
    head = adapters.head(role) if role in adapters.heads else None
    weights = adapters.adapter_weights(role)
    if tokenizer is None:
        write_adapter(Path(folder), config, weights, record, head)
        return
    ends = stop_ids(adapters.model, tokenizer)
    record["dtype"] = str(adapters.model.dtype).removeprefix("torch.")
    record["turn_ends"] = tokenizer.convert_ids_to_tokens(ends)
    if head is not None:
        record["score_head"] = f"{HEAD_FILE}: ((weight @ hidden + bias) @ combine - mean) / scale"

    def write_tokenizer(temporary: Path, written: dict[str, Any]) -> None:
        tokenizer.save_pretrained(temporary)
        if head is None:
            generation = GenerationConfig(  # type: ignore[no-untyped-call]
                eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
            )
            generation.save_pretrained(temporary)
        (temporary / CARD_FILE).write_text(adapter_card(written), "utf-8")
        write_more(temporary)

    write_adapter(Path(folder), config, weights, record, head, write_tokenizer)


def write_adapter_card(folder: Path, summary: dict[str, Any]) -> None:
    """Write the card of an adapter's folder again, with the figures of the run.

    Args:
        folder: of the adapter; that of an ensemble has one for each member.
        summary: the content of ``summary.json``.
    """
    for file in (*folder.glob("provenance.json"), *folder.glob("reward*/provenance.json")):
        card = adapter_card(read_json(file), summary)
        (file.parent / CARD_FILE).write_text(card, "utf-8")


def load_adapter(adapters: AdapterSet, folder: str | Path, role: str = "policy") -> None:
    """Load the adapter weights in ``folder`` into a role.

    Raises:
        ModelError: if they do not belong to this base or do not fit this adapter.
    """
    _, weights = read_adapter(folder, adapters.base, adapters.revision)
    adapters.lora_config(role)  # refuses a role without an adapter
    adapters.load_weights(role, weights, str(folder))


def attach_adapter(adapters: AdapterSet, role: str, folder: str | Path) -> None:
    """Add a saved adapter as a frozen role, with its score head if it has one.

    Raises:
        ModelError: if the role exists, or the adapter does not belong to this base.
    """
    if role in adapters.names:
        raise ModelError(
            f"there is a role {role!r} already; attach the adapter in {str(folder)!r} under another name"
        )
    config, weights = read_adapter(folder, adapters.base, adapters.revision)
    head = None
    if (Path(folder).expanduser() / HEAD_FILE).is_file():
        head = ScoreHead.load(folder)
        width = head.weight.shape[1]
        if width != adapters.hidden_size:
            raise ModelError(
                f"the head in {str(folder)!r} takes hidden states of width {width}, and those of {adapters.base!r} "
                f"have width {adapters.hidden_size}; give the base that it was trained on"
            )
    config.base_model_name_or_path = adapters.base
    adapters.add_frozen(role, config)
    adapters.load_weights(role, weights, str(folder))
    if head is not None:
        adapters.heads[role] = head.to(adapters.model.device)
