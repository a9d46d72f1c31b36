"""The settings that decide memory and speed, chosen for a model, a task and a GPU by the memory planner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import torch

from lit_align.errors import ConfigError
from lit_align.memory.model import ModelShape
from lit_align.memory.planner import CUDA_OVERHEAD, MemoryPlanner, Plan
from lit_align.models.inventory import GIB
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.plugins import load_plugins

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedConfig

DEFAULT_CARD = 24.0  # GiB
UNQUANTIZED_SHARE = 0.25
"""Share of the card that weights in bfloat16 may take; larger ones are stored in 4 bits."""

REFERENCE_WIDTH = 4096
"""Hidden width of the 8B models that the packaged configs' learning rates are for."""

MAX_FACTOR = 4.0  # by which a learning rate is raised for a smaller model
MIN_STEPS = 20  # of an epoch, for which the batch is made smaller

BUDGETS = ((False, 8192), (False, 4096), (True, 8192), (True, 4096))
"""Gradient checkpointing and token budget, in the order of speed."""

SMALLER = ((8, 4096, 2048), (8, 2048, 1024), (8, 1024, 512), (4, 512, 256))
"""Rank, token budget and maximum length, where none of ``BUDGETS`` fits."""


@dataclass(frozen=True)
class Sizes:
    """Settings that decide memory and speed.

    Args:
        quantization: of the base.
        r: rank of the adapters.
        token_budget: tokens that pass through the model at once.
        max_length: tokens that a prompt and one response may have.
        gradient_checkpointing: whether activations are recomputed.
        batch_size: groups of a step.
        max_new_tokens: limit of a sampled response; 0 where nothing is sampled.
        lr: learning rate.
        reasons: a sentence for each setting, by its name.
    """

    quantization: str
    r: int
    token_budget: int
    max_length: int
    gradient_checkpointing: bool
    batch_size: int
    max_new_tokens: int
    lr: float
    reasons: dict[str, str]


def default_card() -> tuple[float, str]:
    """The memory of the GPU in this machine in GiB, or that of a usual one, and which of the two it is."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        card = round(properties.total_memory / GIB, 1)
        return card, f"{properties.name}, {card:g} GiB (--card GIB plans for another one)"
    return DEFAULT_CARD, f"{DEFAULT_CARD:g} GiB (there is no GPU here; --card GIB plans for yours)"


def choose_sizes(
    settings: dict[str, Any], config: PreTrainedConfig, card: float, num_rows: int | None
) -> Sizes:
    """The fastest settings that fit.

    Args:
        settings: of the task's packaged config, with the base and the objective of the run.
        config: of the base.
        card: memory of the GPU in GiB.
        num_rows: of the data; None if it is not known.

    Raises:
        ConfigError: if nothing fits.
    """
    model = settings["model"]["init_args"]
    quantization, reason = _choose_quantization(config, card)
    reasons = {"base": reason}
    lr, reasons["optimizer"] = _choose_lr(model["optimizer"]["init_args"]["lr"], config)
    batch_size, reasons["batch_size"] = _choose_batch(settings, num_rows)
    planner = MemoryPlanner(config)
    available = (card - CUDA_OVERHEAD) * GIB
    peak = 0
    max_length, max_new_tokens = _lengths(settings, config)
    packaged = Sizes(
        quantization=quantization,
        r=model["lora"]["r"],
        token_budget=0,
        max_length=max_length,
        gradient_checkpointing=False,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        lr=lr,
        reasons={},
    )
    for candidate in _candidates(packaged, _num_responses(settings)):
        if candidate.token_budget < _smallest_budget(settings, candidate):
            continue
        peak = planner.peak(_plan(settings, candidate))
        if peak <= available:
            reasons |= _explain(candidate, packaged, peak, card)
            return replace(candidate, reasons=reasons)
    raise ConfigError(
        f"{model['base']['path']} does not fit on a GPU of {card:g} GiB: {peak / GIB:.1f} GiB and {CUDA_OVERHEAD} for "
        "CUDA are predicted even at rank 4 and 256 tokens; take a larger --card or a smaller --base"
    )


def _candidates(packaged: Sizes, num_responses: int) -> Iterator[Sizes]:
    """Settings to try, the fastest first."""
    for is_checkpointing, budget in BUDGETS:
        yield replace(packaged, token_budget=budget, gradient_checkpointing=is_checkpointing)
    batch_size = packaged.batch_size
    while batch_size:
        for rank, budget, length in SMALLER:
            yield replace(
                packaged,
                quantization="nf4",
                gradient_checkpointing=True,
                r=min(packaged.r, rank),
                token_budget=budget,
                max_length=min(packaged.max_length, length),
                batch_size=batch_size,
                max_new_tokens=min(packaged.max_new_tokens, (budget - length) // num_responses),
            )
        batch_size //= 2  # which takes memory where responses are sampled


def _choose_quantization(config: PreTrainedConfig, card: float) -> tuple[str, str]:
    base = Base("", quantization="none", dtype="bfloat16")
    shape = ModelShape.from_config(config, base, Lora(), torch.device("cuda"))
    weights = f"{shape.weights / GIB:.1f} GiB of weights in bfloat16 are"
    if shape.weights <= UNQUANTIZED_SHARE * card * GIB:
        return "none", f"not quantized: {weights} at most a quarter of the card"
    return "nf4", f"4 bits: {weights} over a quarter of the card"


def _choose_lr(lr: float, config: PreTrainedConfig) -> tuple[float, str]:
    """The packaged learning rate, raised for a narrower model; never lowered."""
    width = config.get_text_config().hidden_size
    factor = min(max(1.0, sqrt(REFERENCE_WIDTH / width)), MAX_FACTOR)
    scaled = float(f"{lr * factor:.1e}")
    if factor == 1:
        return lr, f"learning rate {lr:g}, as in the packaged config"
    return scaled, (
        f"learning rate {scaled:g}: {lr:g} of the packaged config, times {factor:.2f} for a hidden width of {width}"
    )


def _choose_batch(settings: dict[str, Any], num_rows: int | None) -> tuple[int, str]:
    """The packaged batch size, or less where an epoch of a small file would have few steps."""
    packaged: int = settings["data"]["init_args"]["batch_size"]
    if num_rows is None or num_rows >= packaged * MIN_STEPS:
        return packaged, "groups in an optimizer step, as in the packaged config"
    batch_size = 1
    while 2 * batch_size <= min(packaged, num_rows / MIN_STEPS):
        batch_size *= 2
    steps = -(-num_rows // batch_size)
    return (
        batch_size,
        f"groups in an optimizer step: {num_rows:,} rows make {steps:,} steps an epoch",
    )


def _lengths(settings: dict[str, Any], config: PreTrainedConfig) -> tuple[int, int]:
    """The packaged limits of rows and of sampled responses, or less where the base has fewer positions."""
    max_length: int = settings["data"]["init_args"]["max_length"]
    max_new_tokens: int = settings["model"]["init_args"].get("max_new_tokens", 0)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return max_length, max_new_tokens
    max_new_tokens = min(max_new_tokens, positions // 2)
    return min(max_length, positions - max_new_tokens), max_new_tokens


def _num_responses(settings: dict[str, Any]) -> int:
    """Responses in a group: those of a pair, or those that are sampled and the reference answer."""
    data = settings["data"]
    if settings["model"]["class_path"] == "RL":
        return int(settings["model"]["init_args"]["num_generations"])
    if data["class_path"] == "Online":
        has_answer = data["init_args"].get("include_reference_answer", False)
        return int(data["init_args"].get("num_generations", 2) + has_answer)
    return 2 if data["class_path"] == "Comparisons" else 1


def _smallest_budget(settings: dict[str, Any], sizes: Sizes) -> int:
    """Tokens of the largest group that max_length lets through; RL takes larger groups than its budget."""
    num_responses = _num_responses(settings)
    if settings["model"]["class_path"] == "RL":
        return sizes.max_length
    if sizes.max_new_tokens:
        return sizes.max_length + (num_responses - 1) * sizes.max_new_tokens
    return num_responses * sizes.max_length


def _plan(settings: dict[str, Any], sizes: Sizes) -> Plan:
    """The memory planner's view of a run with these settings."""
    model = settings["model"]["init_args"]
    stage = settings["model"]["class_path"]
    path = model["base"]["path"]
    plan = Plan(
        base=Base(path, quantization=sizes.quantization, dtype="bfloat16"),  # type: ignore[arg-type]
        lora=Lora(r=sizes.r),
        token_budget=sizes.token_budget,
        batch_size=sizes.batch_size,
        tree=_smallest_budget(settings, sizes),
        scored=0.0 if stage == "RewardModel" else 1.0,
        gradient_checkpointing=sizes.gradient_checkpointing,
        reference=_needs_reference(model["objective"]),
    )
    if stage != "RL":
        return plan
    return replace(
        plan,
        trained=2 if "GAE" in str(model["advantage"]) else 1,
        num_generations=model["num_generations"],
        max_new_tokens=sizes.max_new_tokens,
        reward_budget=sizes.token_budget if "path" in str(model["reward"]) else 0,
    )


def _needs_reference(objective: Any) -> bool:
    """Whether an objective needs a reference model; one whose parts decide is taken to need it."""
    name = objective["class_path"] if isinstance(objective, dict) else objective
    cls: Any = load_plugins().objectives.get(name)
    return bool(getattr(cls, "needs_reference", True)) if cls else True


def _explain(sizes: Sizes, packaged: Sizes, peak: int, card: float) -> dict[str, str]:
    """Reasons of what the memory decides."""
    predicted = f"{peak / GIB:.1f} GiB predicted and {CUDA_OVERHEAD} for CUDA, of {card:g}"
    checkpointing = "recompute activations: without, it does not fit"
    if not sizes.gradient_checkpointing:
        checkpointing = "activations are stored, not recomputed: there is room"
    reasons = {
        "lora": f"rank {sizes.r}{'' if sizes.r == packaged.r else f', less than {packaged.r} for the memory'}",
        "gradient_checkpointing": checkpointing,
        "token_budget": f"tokens that pass through the model at once: {predicted}",
        "max_length": "tokens of a prompt with one response; longer rows are dropped and counted",
    }
    if sizes.max_new_tokens:
        reasons["max_new_tokens"] = "tokens of a sampled response"
    if sizes.batch_size < packaged.batch_size:
        reasons["batch_size"] = (
            f"groups in an optimizer step, less than {packaged.batch_size} for the memory"
        )
    return reasons
