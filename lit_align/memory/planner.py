"""Predict the GPU memory of each phase of a run, and which settings to change if it is too much; needs no GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from lit_align.memory.model import Memory, ModelShape
from lit_align.models.decoding.buffer_length import buffer_length
from lit_align.models.inventory import FLOAT32, GIB, Inventory
from lit_align.models.load import Base
from lit_align.models.lora import Lora

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedConfig

CUDA_OVERHEAD = 1.5  # GiB that CUDA takes for itself and loses to fragmentation
MAX_HALVINGS = 3  # of one setting, before it is proposed no further
SAMPLING_BYTES = 24
"""Bytes for each logit while a token is sampled: itself and its probability in float32, and in float64 a copy of that
and the cumulative sum."""


@dataclass(frozen=True)
class Plan:
    """The settings and data of a run that decide its memory.

    Args:
        base: how the model is loaded.
        lora: settings of the trained adapters.
        token_budget: tokens that pass through the model at once.
        batch_size: groups in a step.
        tree: tokens of the largest group; of the longest prompt where responses are sampled.
        scored: share of a group's tokens that meet the language-model head; with sampling, the responses do.
        gradient_checkpointing: whether activations are recomputed.
        trained: number of trained roles.
        init_adapter: whether the reference is a frozen copy of the adapter that training starts from, which sets r.
        frozen: bytes of other adapters and bases, such as a reward model's.
        reference: whether log-probabilities under a reference are computed.
        num_generations: responses of each prompt; 0 where nothing is sampled.
        max_new_tokens: limit of a response.
        reward_budget: tokens that pass through a reward model at once; 0 without one.
        ptx_batch: demonstrations in an update beside the samples; 0 without.
        ptx_tree: tokens of the longest of them.
        shards: processes that the layers of the base are divided among.
    """

    base: Base
    lora: Lora
    token_budget: int
    batch_size: int
    tree: int
    scored: float = 1.0
    gradient_checkpointing: bool = True
    trained: int = 1
    init_adapter: bool = False
    frozen: int = 0
    reference: bool = False
    num_generations: int = 0
    max_new_tokens: int = 0
    reward_budget: int = 0
    ptx_batch: int = 0
    ptx_tree: int = 0
    shards: int = 1

    @property
    def longest(self) -> int:
        """Tokens of the largest group with all its responses."""
        return self.tree + self.num_generations * self.max_new_tokens

    @property
    def scored_share(self) -> float:
        """Share of a group's tokens that meet the language-model head."""
        if not self.num_generations:
            return self.scored
        return self.num_generations * self.max_new_tokens / self.longest

    def micro_batch_tokens(self, budget: int) -> int:
        """Tokens of the largest micro-batch: at most those of a step, at least those of a group."""
        return max(min(budget, self.batch_size * self.longest), self.longest)

    def reductions(self) -> dict[str, Plan]:
        """The plan with one setting a step smaller, for each setting that can be."""
        fields = {"data.token_budget": "token_budget", "model.reward.token_budget": "reward_budget"}
        if self.num_generations:
            fields["model.num_generations"] = "num_generations"
            fields["data.batch_size"] = "batch_size"
            fields["model.max_new_tokens"] = "max_new_tokens"
        else:
            fields["data.max_length"] = "tree"
        plans = {}
        for setting, field in fields.items():
            value = getattr(self, field)
            if value > 1:
                plans[setting] = replace(self, **{field: value // 2})
        if not self.gradient_checkpointing:
            plans["model.gradient_checkpointing"] = replace(self, gradient_checkpointing=True)
        if self.base.quantization == "none":
            base = replace(self.base, quantization="nf4")
            plans["model.base.quantization"] = replace(self, base=base)
        if self.lora.r > 1 and not self.init_adapter:
            lora = replace(self.lora, r=self.lora.r // 2)
            plans["model.lora.r"] = replace(self, lora=lora)
        return plans

    def format_setting(self, setting: str) -> str:
        """The value of a setting as in the YAML."""
        match setting.rpartition(".")[2]:
            case "gradient_checkpointing":
                return str(self.gradient_checkpointing).lower()
            case "quantization":
                return self.base.quantization
            case "r":
                return str(self.lora.r)
            case "max_length":
                return str(self.tree)
            case name:
                return str(self.reward_budget if "reward" in setting else getattr(self, name))


class MemoryPlanner:
    """Predicts the memory of runs with one model, without loading it.

    Args:
        config: the model's configuration.
        device: where it will run.
    """

    def __init__(self, config: PreTrainedConfig, device: torch.device | None = None) -> None:
        self.config, self.device = config, device or torch.device("cuda")
        self._shapes: dict[tuple[str, int, int], ModelShape] = {}

    def add_inventory(self, plan: Plan, inventory: Inventory) -> None:
        """Take the inventory of a plan's model, which is made already, instead of making it again.

        Args:
            plan: of which it is.
            inventory: in the dtype of the device.
        """
        shape = ModelShape.from_inventory(inventory, self.config, plan.base, plan.lora)
        self._shapes[_shape_key(plan)] = shape.divided(plan.shards)

    def phases(self, plan: Plan) -> dict[str, Memory]:
        """The peak of each phase, once the optimiser has its moments."""
        shape = self._shape(plan)
        static = Memory(
            weights=shape.weights,
            adapters=shape.adapter * (plan.trained + plan.init_adapter) + plan.frozen,
            optimiser=2 * shape.adapter * plan.trained,
            saved=0,
            layer=0,
            head=0,
        )
        phases = {"load": replace(static, optimiser=0, layer=shape.unpacked)}
        if plan.num_generations:
            phases["prefill"] = self._prefill(plan, static)
            phases["decode"] = self._decode(plan, static)
        if plan.reward_budget:
            tokens = plan.micro_batch_tokens(plan.reward_budget)
            layer, head = shape.forward_memory(tokens, 0, plan.longest)
            phases["reward"] = replace(static, layer=layer, head=head)
        update = self._update(plan)
        tokens = plan.micro_batch_tokens(plan.token_budget)
        scored = round(tokens * plan.scored_share)
        if plan.num_generations or not scored:
            layer, head = shape.forward_memory(tokens, scored, plan.longest)
            phases["score"] = replace(static, layer=layer, head=head)
        elif plan.reference:  # while the policy's activations wait for the backward pass
            layer, head = shape.forward_memory(
                tokens, scored, plan.longest, adapted=plan.init_adapter, statistics=False
            )
            gradient = scored * shape.hidden * shape.itemsize  # saved by the policy's head
            phases["score"] = replace(update, layer=layer + gradient, head=head + gradient)
        phases["update"] = update
        return phases

    def _update(self, plan: Plan) -> Memory:
        shape = self._shape(plan)
        tokens = plan.micro_batch_tokens(plan.token_budget)
        update = shape.training_memory(
            tokens,
            round(tokens * plan.scored_share),
            longest=plan.longest,
            gradient_checkpointing=plan.gradient_checkpointing,
            trained=plan.trained,
            frozen=shape.adapter * plan.init_adapter + plan.frozen,
            statistics=not plan.num_generations,
        )
        if not plan.ptx_batch:
            return update
        supervised_plan = replace(
            plan,
            num_generations=0,
            trained=1,
            batch_size=plan.ptx_batch,
            tree=plan.ptx_tree,
            ptx_batch=0,
            scored=1.0,
        )
        ptx = self._update(supervised_plan)
        ptx = replace(update, saved=ptx.saved, layer=ptx.layer, head=ptx.head)
        return ptx if ptx.total > update.total else update

    def _prefill(self, plan: Plan, static: Memory) -> Memory:
        shape = self._shape(plan)
        prompts = min(max(1, plan.token_budget // plan.tree), plan.batch_size)
        layer, head = shape.forward_memory(prompts * plan.tree, prompts, plan.tree)
        # logits of the prompts that were read before
        logits = FLOAT32 * (plan.batch_size - prompts) * shape.vocabulary
        length = buffer_length(plan.tree, plan.tree + plan.max_new_tokens)
        cache = shape.cache(plan.batch_size * plan.num_generations * length)
        return replace(static, saved=cache, layer=layer + logits, head=head + logits)

    def _decode(self, plan: Plan, static: Memory) -> Memory:
        shape = self._shape(plan)
        rows = plan.batch_size * plan.num_generations
        length = plan.tree + plan.max_new_tokens
        logits = rows * shape.vocabulary
        cache = shape.cache(rows * buffer_length(length, length))
        layer, _ = shape.forward_memory(rows, 0, length)
        layer += FLOAT32 * logits
        if buffer_length(plan.tree, length) < length:  # a layer's keys are copied when they grow
            layer = max(layer, cache // shape.layers // 2)
        return replace(static, saved=cache, layer=layer, head=SAMPLING_BYTES * logits)

    def peak(self, plan: Plan) -> int:
        """The largest memory of any phase, in bytes."""
        return max(memory.total for memory in self.phases(plan).values())

    def fixes(self, plan: Plan, available: float) -> dict[str, Plan]:
        """Settings that lower the peak, each changed alone: until it is below ``available`` bytes, or an eighth."""
        fixes = {}
        for setting in plan.reductions():
            reduced = self._reduce(plan, setting, available)
            if reduced is not plan:
                fixes[setting] = reduced
        return fixes

    def verdict(self, plan: Plan, card: float) -> str:
        """Whether the run fits on a card of ``card`` GiB, and what to change if it does not."""
        available = (card - CUDA_OVERHEAD) * GIB
        need = f"{self._format_peak(plan)}, and {CUDA_OVERHEAD} GiB for CUDA itself, on a card of {card:g} GiB"
        if self.peak(plan) > available:
            return f"It does not fit: {need}. {self._propose_fixes(plan, available)}"
        if not plan.gradient_checkpointing:
            return f"It fits: {need}."
        without = replace(plan, gradient_checkpointing=False)
        peak = self._format_peak(without)
        if self.peak(without) <= available:
            return (
                f"It fits: {need}. model.gradient_checkpointing could be false: {peak}, and faster."
            )
        return f"It fits: {need}. It needs model.gradient_checkpointing: without it, {peak}."

    def _propose_fixes(self, plan: Plan, available: float) -> str:
        """Settings each of which is enough; or all of them together."""
        fixes = self.fixes(plan, available)
        offers = []
        for setting, fixed in fixes.items():
            if self.peak(fixed) <= available:
                value = fixed.format_setting(setting)
                offers.append(f"{setting}: {value} ({self._format_peak(fixed)})")
        if offers:
            return f"Enough would be {' or '.join(offers)}."
        best_first = sorted(fixes, key=lambda setting: self.peak(fixes[setting]))
        combined = plan
        for setting in best_first:
            combined = self._reduce(combined, setting, available)
        changes = []
        for setting in best_first:
            value = combined.format_setting(setting)
            if value != plan.format_setting(setting):
                changes.append(f"{setting}: {value}")
        hint = "" if self.peak(combined) <= available else "; for less, take a smaller base"
        return f"It takes {', '.join(changes)} together: {self._format_peak(combined)}{hint}."

    def _reduce(self, plan: Plan, setting: str, available: float) -> Plan:
        for _ in range(MAX_HALVINGS):
            reduced = plan.reductions().get(setting)
            if self.peak(plan) <= available or reduced is None:
                break
            if self.peak(reduced) >= self.peak(plan):
                break
            plan = reduced
        return plan

    def _format_peak(self, plan: Plan) -> str:
        return f"{self.peak(plan) / GIB:.2f} GiB"

    def _shape(self, plan: Plan) -> ModelShape:
        key = _shape_key(plan)
        if key not in self._shapes:
            shape = ModelShape.from_config(self.config, plan.base, plan.lora, self.device)
            self._shapes[key] = shape.divided(plan.shards)
        return self._shapes[key]


def _shape_key(plan: Plan) -> tuple[str, int, int]:
    """What of a plan decides the shape of its model."""
    return plan.base.quantization, plan.lora.r, plan.shards
