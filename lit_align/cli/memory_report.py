"""The memory that a run needs, from its settings and the length of its data; no weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lit_align.data.datamodules import TextDataModule
from lit_align.data.tree_store import totals_of
from lit_align.memory.model import ModelShape
from lit_align.memory.planner import MemoryPlanner, Plan
from lit_align.models.adapters import same_base
from lit_align.models.fused import expected_fusion
from lit_align.models.inventory import GIB, Inventory
from lit_align.models.layers import model_without_weights
from lit_align.models.load import Base, load_config
from lit_align.models.lora import Lora
from lit_align.rewards import Reward
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.rewards.teacher import Teacher
from lit_align.rewards.weighted import Weighted
from lit_align.rl.stage import RL
from lit_align.rl.teaching import teachers_in
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.sft import SFT
from lit_align.types import Tree

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = ("total", "weights", "adapters", "optimiser", "saved or cached", "at work")


def make_inventory(plan: Plan) -> Inventory:
    """The inventory of a plan's model on a GPU, which is made of a model without weights."""
    device = torch.device("cuda")
    return Inventory.from_base(load_config(plan.base), plan.base, plan.lora, device)


def print_memory(
    console: Console, stage: LanguageModelStage, plan: Plan, inventory: Inventory, card: float
) -> None:
    """Print the peak of each phase, and whether it fits on a card of so many GiB.

    Args:
        console: to print on.
        stage: what would be trained.
        plan: of `plan_memory`.
        inventory: of `make_inventory`.
        card: memory of the GPU in GiB.
    """
    from rich.table import Table

    config = load_config(stage.base)
    console.print(inventory.table(), highlight=False, markup=False)
    fusion = expected_fusion(model_without_weights(config), plan.lora)
    if fusion.obstacles:
        console.print(str(fusion), highlight=False, markup=False)
    planner = MemoryPlanner(config)
    planner.add_inventory(plan, inventory)
    table = Table(title="GiB at the peak of each phase, predicted for a GPU")
    table.add_column("phase")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for phase, memory in planner.phases(plan).items():
        sizes = (
            memory.total,
            memory.weights,
            memory.adapters,
            memory.optimiser,
            memory.saved,
            max(memory.layer, memory.head),
        )
        table.add_row(phase, *(f"{size / GIB:.2f}" for size in sizes))
    console.print(table)
    console.print(planner.verdict(plan, card), highlight=False, markup=False)
    if isinstance(stage, RL):
        for reward in reward_parts(stage.reward):
            if not isinstance(reward, RewardModelScore | Teacher):
                console.print(
                    f"What {type(reward).__name__} loads for itself, if anything, is not counted."
                )


def plan_memory(
    stage: LanguageModelStage,
    data: TextDataModule,
    trees: Sequence[Tree],
    demonstrations: Sequence[Tree] = (),
) -> Plan:
    """The settings and sizes that decide the memory of a run.

    Args:
        stage: what would be trained.
        data: its settings of batches.
        trees: the training data.
        demonstrations: those of the pretraining mix.
    """
    has_policy = any(role not in stage.head_sizes for role in stage.trained_roles)
    totals = totals_of(trees)
    plan = Plan(
        base=stage.base,
        lora=_lora(stage),
        token_budget=data.token_budget,
        batch_size=min(data.batch_size, len(trees)),
        tree=totals.largest,
        scored=totals.scored / totals.tokens if has_policy else 0.0,
        gradient_checkpointing=stage.gradient_checkpointing,
        trained=len(stage.trained_roles),
        init_adapter=stage.init_adapter is not None,
        reference=stage.objective.needs_reference,
    )
    if isinstance(stage, SFT) and stage.teacher is not None:
        taught = _other_bytes(stage.teacher.adapter, stage.teacher.base)
        return replace(plan, frozen=taught, reference=True)  # a second pass, as a reference's
    if not isinstance(stage, RL):
        return plan
    parts = reward_parts(stage.reward)
    rewards = [reward for reward in parts if isinstance(reward, RewardModelScore)]
    teachers = teachers_in(stage.reward)
    readers: list[RewardModelScore | Teacher] = [*rewards]
    readers += [teacher for teacher in teachers if teacher.server is None]
    return replace(
        plan,
        num_generations=stage.num_generations,
        max_new_tokens=stage.max_new_tokens,
        frozen=sum(_frozen_bytes(reward, stage.base) for reward in rewards)
        + sum(_teacher_bytes(teacher, stage) for teacher in teachers),
        reward_budget=max((reader.token_budget for reader in readers), default=0),
        ptx_batch=min(stage.ptx.batch_size, len(demonstrations)) if stage.ptx else 0,
        ptx_tree=totals_of(demonstrations).largest,
    )


def _lora(stage: LanguageModelStage) -> Lora:
    """The shape of the adapters, which that of the first one decides."""
    if stage.init_adapter is None:
        return stage.lora
    file = Path(stage.init_adapter).expanduser() / "adapter_config.json"
    settings = json.loads(file.read_text("utf-8"))
    targets = settings["target_modules"] or []
    if not isinstance(targets, str):
        targets = [*targets, *(settings.get("target_parameters") or [])]
    return replace(stage.lora, r=settings["r"], targets=targets)


def reward_parts(reward: Reward) -> list[Reward]:
    """The rewards in a weighted sum; else the reward itself."""
    if not isinstance(reward, Weighted):
        return [reward]
    parts: list[Reward] = []
    for part in reward.rewards:
        parts += reward_parts(part)
    return parts


def _teacher_bytes(teacher: Teacher, stage: LanguageModelStage) -> int:
    """Bytes of what a teacher adds to the policy and its reference."""
    if teacher.role != "average":
        return _other_bytes(teacher.adapter, teacher.base)
    config = load_config(stage.base)
    device = torch.device("cuda")
    return ModelShape.from_config(config, stage.base, _lora(stage), device).adapter


def _other_bytes(adapter: str | None, base: Base | None) -> int:
    """Bytes of an adapter that was saved, or of another base."""
    if adapter is not None:
        return sum(file.stat().st_size for file in _adapter_weights(adapter))
    return 0 if base is None else _base_bytes(base)


def _frozen_bytes(reward: RewardModelScore, base: Base) -> int:
    """Bytes of a reward model's adapters, and of its base if that is not the one in memory."""
    files = _adapter_weights(reward.path)
    num_bytes = sum(file.stat().st_size for file in files)
    provenance = json.loads((files[0].parent / "provenance.json").read_text("utf-8"))
    reward_base = Base(**provenance["loads"])
    is_same_precision = (reward_base.quantization, reward_base.dtype) == (
        base.quantization,
        base.dtype,
    )
    if is_same_precision and same_base(reward_base.path, base.path):
        return num_bytes
    return num_bytes + _base_bytes(reward_base)


def _adapter_weights(path: str) -> list[Path]:
    """The files with the weights of an adapter, or of each member of an ensemble."""
    return list(Path(path).expanduser().glob("**/adapter_model.safetensors"))


def _base_bytes(base: Base) -> int:
    """Bytes of a base that is loaded beside the one in memory."""
    return ModelShape.from_config(load_config(base), base, Lora(), torch.device("cuda")).weights
