"""Fingerprint of an adapter and its base: names the files of cached reference log-probabilities."""

from __future__ import annotations

import hashlib
import json

import torch

from lit_align.compat.peft import parameter_belongs_to
from lit_align.models.adapter_set import AdapterSet

IGNORED_SETTINGS = {"_name_or_path", "transformers_version", "use_cache"}
SAMPLED_NUMBERS = 64  # of each base weight; adapters are hashed completely


def adapter_fingerprint(adapters: AdapterSet, role: str) -> str:
    """A hash that changes with the base's weights or settings and with the role's adapter.

    Raises:
        ModelError: if there is no such role.
    """
    has_adapter = adapters.has_adapter(role)
    settings = adapters.model.config.to_dict()
    for name in IGNORED_SETTINGS:
        settings.pop(name, None)
    text = json.dumps(settings, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode())
    for name, parameter in adapters.peft.named_parameters():
        is_own = has_adapter and parameter_belongs_to(name, role)
        if not is_own and any(parameter_belongs_to(name, other) for other in adapters.names):
            continue
        values = parameter.detach().flatten()
        if not is_own:
            values = values[:SAMPLED_NUMBERS]
        parts = [part for part in name.split(".") if part not in adapters.names]
        header = f"{'.'.join(parts)} {parameter.dtype}"
        content = values.cpu().contiguous().view(torch.uint8)
        digest.update(header.encode())
        digest.update(content.numpy().tobytes())
    return digest.hexdigest()[:32]
