"""Adapters on disk: ordinary PEFT folders, with a record of where they come from."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lit_align._version import __version__
from lit_align.errors import ModelError
from lit_align.models.atomic_folder import whole_folder
from lit_align.models.heads import ScoreHead

if TYPE_CHECKING:
    from peft import LoraConfig

# Each of these trains or rewrites a part of the base, which all roles share.
TOUCHES_BASE = (
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
)
LEAVES_BASE = (
    True,
    False,
    "gaussian",
    "orthogonal",
    "kaiming",
)  # ways to initialise a LoRA; PiSSA, OLoRA, ... do not


def read_adapter(folder: str | Path, base: str) -> tuple[LoraConfig, dict[str, Tensor]]:
    """The settings and weights of a LoRA adapter that was trained on ``base``.

    Raises:
        ModelError: if the folder holds no LoRA adapter, or one for another base, or one that changes the base.
    """
    from peft import LoraConfig, PeftConfig
    from safetensors.torch import load_file

    folder = Path(folder).expanduser()
    weights = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        raise ModelError(
            f"no adapter at {str(folder)!r}; give a folder with adapter_config.json and adapter_model.safetensors"
        )
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise ModelError(
            f"the adapter in {str(folder)!r} is {config.peft_type.value}; only LoRA adapters are supported"
        )
    trained_on = config.base_model_name_or_path
    if trained_on and not same_base(trained_on, base):
        raise ModelError(
            f"the adapter in {str(folder)!r} was trained on {trained_on!r}, not on {base!r}; give that base instead"
        )
    touching = [field for field in TOUCHES_BASE if getattr(config, field, None)]
    touching += ["bias"] * (config.bias != "none")
    touching += ["init_lora_weights"] * (config.init_lora_weights not in LEAVES_BASE)
    if touching:
        raise ModelError(
            f"the adapter in {str(folder)!r} sets {' and '.join(touching)}, which changes the shared base; "
            "merge it into the base and give the merged model instead"
        )
    return config, load_file(weights)


def write_adapter(
    folder: Path,
    config: LoraConfig,
    weights: dict[str, Tensor],
    provenance: dict[str, Any],
    head: ScoreHead | None = None,
) -> None:
    """Write a folder that PEFT and vLLM load, with its head if there is one; an older one stays until it is whole."""
    from safetensors.torch import save_file

    config = copy.deepcopy(config)
    config.target_modules = written_targets(config)
    config.inference_mode = (
        True  # as PEFT writes it: who loads the adapter does not mean to train it
    )
    with whole_folder(folder) as made:
        config.save_pretrained(str(made))
        save_file(
            {name: w.contiguous() for name, w in weights.items()},
            made / "adapter_model.safetensors",
            {"format": "pt"},
        )
        if head is not None:
            head.save(made)
        record = {**provenance, "base": config.base_model_name_or_path, "lit_align": __version__}
        (made / "provenance.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def written_targets(config: LoraConfig) -> str | list[str]:
    """The layers with an adapter as they are written down: a pattern as it is, names (a set) always in one order."""
    targets = config.target_modules or ()
    return targets if isinstance(targets, str) else sorted(targets)


def same_base(one: str, other: str) -> bool:
    """Whether two names can mean one model: the same name or folder, or a folder elsewhere that is called the same.

    Example:
        >>> same_base("HuggingFaceTB/SmolLM2-135M", "/models/SmolLM2-135M/"), same_base("org/one", "org/two")
        (True, False)
    """
    here, there = Path(one).expanduser(), Path(other).expanduser()
    if here.exists() and there.exists():
        return here.resolve() == there.resolve()
    return one == other or here.name == there.name
