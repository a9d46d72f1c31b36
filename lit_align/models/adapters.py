"""LoRA adapters as PEFT folders on disk, with a record of their provenance, and as weights of a PEFT model."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_align._version import __version__
from lit_align.errors import ModelError
from lit_align.jsonl import read_json
from lit_align.models.atomic_folder import atomic_folder
from lit_align.models.base_content import base_content
from lit_align.models.heads import ScoreHead

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

BASE_CHANGING_SETTINGS = (
    "modules_to_save",
    "trainable_token_indices",
    "layer_replication",
)
"""Settings that train or rewrite a part of the base, which all adapters share."""

BASE_KEEPING_INIT = (True, False, "gaussian", "orthogonal", "kaiming")
"""Values of ``init_lora_weights`` that leave the base as it is; PiSSA, OLoRA and others change it."""

PLAIN_LORA = (
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "target_parameters",
    "task_type",
    "use_dora",
    "use_rslora",
    "bias",
    "init_lora_weights",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
)
"""Settings under which a layer computes by itself, or of the initial weights; others name variants of LoRA."""


def read_adapter(
    folder: str | Path, base: str, revision: str | None = None
) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Settings and weights of a LoRA adapter that was trained on ``base``.

    Args:
        folder: of the adapter.
        base: path of the base, as in the settings.
        revision: of the base on the hub.

    Raises:
        ModelError: if the folder holds no LoRA adapter, or one for another base, or one that changes the base.
    """
    from safetensors.torch import load_file

    config = check_adapter(folder, base, revision)
    return config, load_file(Path(folder).expanduser() / "adapter_model.safetensors")


def check_adapter(folder: str | Path, base: str, revision: str | None = None) -> LoraConfig:
    """Settings of a LoRA adapter that was trained on ``base``; arguments and errors as of `read_adapter`."""
    from peft import LoraConfig, PeftConfig

    folder = Path(folder).expanduser()
    weights = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        inner = folder / "adapter"
        hint = f"; did you mean {str(inner)!r}?" if inner.is_dir() else ""
        raise ModelError(
            f"no adapter at {str(folder)!r}; give a folder with adapter_config.json and adapter_model.safetensors{hint}"
        )
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise ModelError(
            f"the adapter in {str(folder)!r} is {config.peft_type.value}; only LoRA adapters are supported"
        )
    _check_base(folder, config.base_model_name_or_path, base, revision)
    base_changing = [name for name in BASE_CHANGING_SETTINGS if getattr(config, name, None)]
    if config.bias != "none":
        base_changing.append("bias")
    if config.init_lora_weights not in BASE_KEEPING_INIT:
        base_changing.append("init_lora_weights")
    if base_changing:
        raise ModelError(
            f"the adapter in {str(folder)!r} sets {' and '.join(base_changing)}, which changes the shared base; "
            "merge it into the base and give the merged model instead"
        )
    _check_variant(folder)
    return config


def _check_variant(folder: Path) -> None:
    """Refuse settings that change what an adapter computes in ways that are not known here."""
    settings = read_json(folder / "adapter_config.json")
    known = (*PLAIN_LORA, *BASE_CHANGING_SETTINGS)
    unknown = [name for name, value in settings.items() if value and name not in known]
    if unknown:
        raise ModelError(
            f"the adapter in {str(folder)!r} sets {' and '.join(unknown)}, a variant of LoRA that lit-align does not "
            "compute; merge it into the base with PEFT's merge_and_unload and give the merged model instead"
        )


def _check_base(folder: Path, trained_on: str | None, base: str, revision: str | None) -> None:
    """Refuse another base: by its weights where both are known, otherwise by its name."""
    content = base_content(base, revision)
    saved = read_provenance(folder).get("base_content")
    if saved is None and trained_on and content is not None and not same_base(trained_on, base):
        saved = base_content(trained_on)
    if saved is not None and content is not None:
        if saved == content:
            return
        raise ModelError(
            f"the adapter in {str(folder)!r} was trained on {trained_on!r}, not on {base!r}, which has other "
            f"weights (hash {content[:8]}, not {saved[:8]}); give that base instead"
        )
    if trained_on and not same_base(trained_on, base):
        raise ModelError(
            f"the adapter in {str(folder)!r} was trained on {trained_on!r}, not on {base!r}; give that base instead, "
            "or, if it is a copy, write its path into base_model_name_or_path of adapter_config.json"
        )


def read_provenance(folder: str | Path) -> dict[str, Any]:
    """The ``provenance.json`` of an adapter's folder; empty if it has none, as an adapter from elsewhere."""
    file = Path(folder).expanduser() / "provenance.json"
    return dict(read_json(file)) if file.is_file() else {}


def saved_template(folder: str | Path) -> tuple[str | None, dict[str, Any] | None]:
    """The settings ``chat_template`` and ``template_kwargs`` that give the template an adapter was trained under.

    A file of the user's own may be gone; the adapter's folder has a copy, in which the arguments are written.
    """
    provenance = read_provenance(folder)
    template, kwargs = provenance.get("chat_template"), provenance.get("template_kwargs")
    file = Path(folder).expanduser() / "chat_template.jinja"
    if template in (None, "chatml") or not file.is_file():
        return template, kwargs
    return str(file), None


def write_adapter(
    folder: Path,
    config: LoraConfig,
    weights: dict[str, Tensor],
    provenance: dict[str, Any],
    head: ScoreHead | None = None,
    write_more: Callable[[Path, dict[str, Any]], None] | None = None,
) -> None:
    """Write a folder that PEFT and vLLM load; an old folder is replaced at once.

    Args:
        folder: where to.
        config: PEFT's settings.
        weights: by PEFT's names.
        provenance: for ``provenance.json``.
        head: score head, of a reward model or critic.
        write_more: called with the folder and the provenance, to write further files.
    """
    from safetensors.torch import save_file

    config = copy.deepcopy(config)
    config.target_modules = written_targets(config)
    config.inference_mode = True  # as PEFT writes it: to be loaded for inference
    record = {**provenance, "base": config.base_model_name_or_path, "lit_align": __version__}
    with atomic_folder(folder) as temporary:
        config.save_pretrained(str(temporary))
        contiguous = {name: weight.contiguous() for name, weight in weights.items()}
        save_file(contiguous, temporary / "adapter_model.safetensors", {"format": "pt"})
        if head is not None:
            head.save(temporary)
        text = json.dumps(record, indent=2) + "\n"
        (temporary / "provenance.json").write_text(text, "utf-8")
        if write_more is not None:
            write_more(temporary, record)


def written_targets(config: LoraConfig) -> str | list[str]:
    """Target modules as they are saved: a pattern as it is, names (a set) sorted."""
    targets = config.target_modules or ()
    return targets if isinstance(targets, str) else sorted(targets)


def same_base(name: str, other: str) -> bool:
    """Whether two names can mean one model: the same name or folder, or folders elsewhere with the same last part.

    Example:
        >>> same_base("HuggingFaceTB/SmolLM2-135M", "/models/SmolLM2-135M/"), same_base("org/one", "org/two")
        (True, False)
    """
    path, other_path = Path(name).expanduser(), Path(other).expanduser()
    if path.exists() and other_path.exists():
        return path.resolve() == other_path.resolve()
    return name == other or path.name == other_path.name


def adapter_state(peft: PeftModel, adapter: str) -> dict[str, Tensor]:
    """The weights of one adapter of a PEFT model, by PEFT's names."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(peft, adapter_name=adapter, save_embedding_layers=False)
    return dict(state)


def set_adapter_state(
    peft: PeftModel, adapter: str, weights: Mapping[str, Tensor], source: str, base: str
) -> None:
    """Load weights into one adapter of a PEFT model; ``source`` and ``base`` name both in the error message.

    Raises:
        ModelError: if names or shapes differ.
    """
    from peft import set_peft_model_state_dict

    weights = _without_base_weights(peft, weights, source)
    shapes = {name: weight.shape for name, weight in adapter_state(peft, adapter).items()}
    new_shapes = {name: weight.shape for name, weight in weights.items()}
    names = {**shapes, **new_shapes}
    differing = [name for name in names if shapes.get(name) != new_shapes.get(name)]
    if differing:
        raise ModelError(
            f"{source} does not fit {base!r}: {len(differing)} of its weights differ, first {differing[0]!r}; "
            "give one with the same r and targets, trained on this base"
        )
    set_peft_model_state_dict(peft, dict(weights), adapter_name=adapter)


def _without_base_weights(
    peft: PeftModel, weights: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """The weights less copies of those of the base: PEFT saves embeddings with an adapter on them.

    Raises:
        ModelError: if they are no copies.
    """
    base = dict(peft.named_parameters(remove_duplicate=False))
    adapter_weights = {}
    for name, weight in weights.items():
        if "lora_" in name or name not in base:
            adapter_weights[name] = weight
            continue
        own = base[name]
        if own.shape != weight.shape or not torch.equal(weight.to(own), own):
            raise ModelError(
                f"{source} holds {name!r}, other weights than the base's, which all adapters share: embeddings were "
                "resized or trained; merge it into the base and give the merged model instead"
            )
    return adapter_weights
