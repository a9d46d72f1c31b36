"""What vLLM's loader of LoRA adapters takes, by its published rules; vLLM itself is not run here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lit_align.jsonl import read_json
from lit_align.models.heads import HEAD_FILE

MAX_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's ``--max-lora-rank``; it takes adapters of this rank or a lower one."""
DEFAULT_MAX_LORA_RANK = 16

ADAPTER_WEIGHT = re.compile(r"base_model\.model\..+\.(lora_[AB]\.weight|lora_embedding_[AB])")
STACKED = re.compile(r"\.base_layer\.|\.experts\.lora_")


def vllm_problems(folder: str | Path) -> list[str]:
    """Why vLLM would not load an adapter, or would compute something else with it; empty if nothing is known.

    Args:
        folder: of the adapter.
    """
    from safetensors import safe_open

    folder = Path(folder)
    config: dict[str, Any] = read_json(folder / "adapter_config.json")
    problems = []
    if config["r"] > MAX_LORA_RANKS[-1]:
        problems.append(f"its rank {config['r']} is over {MAX_LORA_RANKS[-1]}")
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        problems.append("it has biases")
    if config.get("use_dora"):
        problems.append("it is a DoRA adapter")
    if config.get("modules_to_save") or config.get("trainable_token_indices"):
        problems.append("it trains weights of the base")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        problems.append("its layers differ in rank or alpha")
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    unknown = [name for name in names if not ADAPTER_WEIGHT.fullmatch(name)]
    if unknown and not problems:
        problems.append(f"the name of its weight {unknown[0]} is unknown to vLLM")
    if any(STACKED.search(name) for name in names) or config.get("target_parameters"):
        problems.append("it is on the stacked weights of experts or routers")
    if (folder / HEAD_FILE).is_file():
        problems.append("it belongs to a score head")
    return problems


def vllm_options(folder: str | Path) -> str:
    """The options of ``vllm serve`` for an adapter without problems.

    Args:
        folder: of the adapter.
    """
    rank = read_json(Path(folder) / "adapter_config.json")["r"]
    limit = min(limit for limit in MAX_LORA_RANKS if limit >= rank)
    options = "--enable-lora"
    return options if limit <= DEFAULT_MAX_LORA_RANK else f"{options} --max-lora-rank {limit}"
