"""``lit-align inspect``: what became of every row, what is learned from it, and what the run will need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lit_align.data.datamodules import TextDataModule
from lit_align.data.ledger import Ledger
from lit_align.data.loader import StepLoader
from lit_align.memory.model import GIB, ModelShape
from lit_align.memory.planner import MemoryPlanner, Plan
from lit_align.models.adapter_set import Lora
from lit_align.models.adapters import same_base
from lit_align.models.load import Base, load_config
from lit_align.rewards import Reward
from lit_align.rewards.reward_model import RewardModelScore
from lit_align.rewards.weighted import Weighted
from lit_align.rl.pretraining_mix import beside
from lit_align.rl.stage import RL
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.types import Tree

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 3


def run(stage: LanguageModelStage, data: TextDataModule, card: float) -> None:
    """Tokenise, print the ledger and three examples with the scored tokens marked; load no weights, train nothing.

    What ``fit`` would refuse about the data is refused here too.

    Args:
        stage: what would train.
        data: what it would learn from.
        card: GiB of the GPU that it should fit on, which need not be here.
    """
    from rich.console import Console

    console = Console()

    def show(ledger: Ledger) -> None:
        console.print(ledger.table(), highlight=False, markup=False)

    stage.check_data(data)
    ptx = beside(stage.ptx, data) if isinstance(stage, RL) and stage.ptx is not None else None
    prepared = {}
    for one, split in [(data, "train"), *([(ptx, "ptx")] if ptx else []), (data, "validation")]:
        if not one.paths[split]:
            continue
        trees = one.read_trees(split, one.label_kind, stage, show)
        StepLoader(trees, batch_size=one.batch_size, token_budget=one.token_budget)
        prepared[split] = trees
        if isinstance(stage, RL) and one is data:
            stage.check_room(trees)
        if split != "validation":
            console.print(
                "\nExamples; what is learned from stands between \u27e6 and \u27e7, the rest is only read:"
            )
            for tree in trees[:SHOWN]:
                _show(console, stage, tree)
    _predict(console, planned(stage, data, prepared["train"], prepared.get("ptx", [])), stage, card)


def _show(console: Console, stage: LanguageModelStage, tree: Tree) -> None:
    from rich.text import Text

    decode = stage.tokenizer.decode
    console.rule(tree.group.source)
    console.print(Text(str(decode(tree.prompt)), style="dim"))
    for k, (ids, scored) in enumerate(zip(tree.responses, tree.scored, strict=True)):
        line = Text(f"({k}) ", style="bold")
        for learned, run in groupby(zip(scored, ids, strict=True), key=itemgetter(0)):
            text = str(decode([token for _, token in run]))
            line.append(
                f"\u27e6{text}\u27e7" if learned else text, style="bold green" if learned else "dim"
            )
        console.print(line)
    for pair in tree.group.pairs:
        sure = "" if pair.probability == 1 else f" with probability {pair.probability:g}"
        console.print(f"({pair.better}) is better than ({pair.worse}){sure}")


def _predict(console: Console, plan: Plan, stage: LanguageModelStage, card: float) -> None:
    from rich.table import Table

    preview = MemoryPlanner(load_config(stage.base))
    table = Table(title="GiB at the peak of each phase, predicted for a GPU")
    table.add_column("phase")
    for name in ("total", "weights", "adapters", "optimiser", "kept or cached", "at work"):
        table.add_column(name, justify="right")
    for name, m in preview.phases(plan).items():
        parts = (m.total, m.weights, m.adapters, m.optimiser, m.saved, max(m.layer, m.head))
        table.add_row(name, *(f"{part / GIB:.2f}" for part in parts))
    console.print(table)
    console.print(preview.verdict(plan, card), highlight=False, markup=False)
    for reward in _parts(stage.reward) if isinstance(stage, RL) else ():
        if not isinstance(reward, RewardModelScore):
            console.print(
                f"What {type(reward).__name__} loads for itself, if anything, is not counted."
            )


def planned(
    stage: LanguageModelStage, data: TextDataModule, trees: list[Tree], shown: Sequence[Tree] = ()
) -> Plan:
    """What of a run's settings and its data decides the room that it takes; ``shown`` are demonstrations beside it."""
    trained_roles, scores, lora = stage.trained_roles, stage.head_sizes, stage.lora
    if stage.init_adapter is not None:
        lora = replace(
            lora,
            r=json.loads(
                (Path(stage.init_adapter).expanduser() / "adapter_config.json").read_text("utf-8")
            )["r"],
        )
    scored = sum(tree.num_scored for tree in trees) / sum(tree.tokens for tree in trees)
    plan = Plan(
        base=stage.base,
        lora=lora,
        token_budget=data.token_budget,
        batch_size=min(data.batch_size, len(trees)),
        tree=max(tree.tokens for tree in trees),
        scored=scored if any(role not in scores for role in trained_roles) else 0.0,
        gradient_checkpointing=stage.gradient_checkpointing,
        trained=len(trained_roles),
        init_adapter=stage.init_adapter is not None,
        reference=stage.objective.needs_reference,
    )
    if not isinstance(stage, RL):
        return plan
    rewards = [reward for reward in _parts(stage.reward) if isinstance(reward, RewardModelScore)]
    return replace(
        plan,
        num_generations=stage.num_generations,
        max_new_tokens=stage.max_new_tokens,
        frozen=sum(_room(reward, stage.base) for reward in rewards),
        reward_budget=max((reward.token_budget for reward in rewards), default=0),
        ptx_batch=min(stage.ptx.batch_size, len(shown)) if stage.ptx else 0,
        ptx_tree=max((tree.tokens for tree in shown), default=0),
    )


def _parts(reward: Reward) -> list[Reward]:
    return (
        [part for one in reward.rewards for part in _parts(one)]
        if isinstance(reward, Weighted)
        else [reward]
    )


def _room(reward: RewardModelScore, base: Base) -> int:
    """Bytes of a reward model's adapters, and of its base if that is not the one in memory."""
    files = [file for file in Path(reward.path).expanduser().glob("**/adapter_model.safetensors")]
    loads = Base(**json.loads((files[0].parent / "provenance.json").read_text("utf-8"))["loads"])
    shared = same_base(loads.path, base.path) and (loads.quantization, loads.dtype) == (
        base.quantization,
        base.dtype,
    )
    own = (
        0
        if shared
        else ModelShape.from_config(load_config(loads), loads, Lora(), torch.device("cuda")).weights
    )
    return own + sum(file.stat().st_size for file in files)
