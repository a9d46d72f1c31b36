"""Save, load and attach the adapters of an `AdapterSet`, as PEFT folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_align.errors import ModelError
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.adapters import read_adapter, write_adapter, written_targets
from lit_align.models.heads import HEAD_FILE, ScoreHead


def lora_settings(adapters: AdapterSet, role: str) -> dict[str, Any]:
    """A role's r, alpha and targets; those of ``init_adapter`` if it started from one.

    Raises:
        ModelError: if the role has no adapter.
    """
    config = adapters.lora_config(role)
    return {"r": config.r, "alpha": config.lora_alpha, "targets": written_targets(config)}


def save_adapter(
    adapters: AdapterSet,
    folder: Path,
    role: str = "policy",
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write a role's adapter as a PEFT folder with ``provenance.json``, and with its score head if it has one.

    An existing folder is replaced as a whole.

    Raises:
        ModelError: if the role has no adapter.
    """
    config = adapters.lora_config(role)
    record = {**(provenance or {}), "role": role, "lora": lora_settings(adapters, role)}
    head = adapters.head(role) if role in adapters.heads else None
    write_adapter(Path(folder), config, adapters.adapter_weights(role), record, head)


def load_adapter(adapters: AdapterSet, folder: str | Path, role: str = "policy") -> None:
    """Load the adapter weights in ``folder`` into a role.

    Raises:
        ModelError: if they do not belong to this base or do not fit this adapter.
    """
    _, weights = read_adapter(folder, adapters.base)
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
    config, weights = read_adapter(folder, adapters.base)
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
