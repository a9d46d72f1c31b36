"""What each phase of a run needs on a GPU, which need not be here, and which setting to change if that is too much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from lit_align.memory.model import GIB, Memory, ModelShape
from lit_align.models.adapter_set import Lora
from lit_align.models.load import Base

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

OWN = 1.5  # GiB that CUDA takes for itself and leaves between tensors
STEPS = 3  # halvings of a setting that are still worth proposing


@dataclass(frozen=True)
class Plan:
    """What of a run's settings and data decides the room that it takes.

    Args:
        base: how the model is loaded.
        lora: what every role that learns has.
        token_budget: tokens that pass through the model at once.
        batch_size: groups in a step.
        tree: tokens of the largest group; of the longest prompt where responses are sampled.
        scored: share of a group's tokens that meet the language-model head; with samples, the responses do.
        gradient_checkpointing: whether activations are recomputed.
        trained: roles that learn.
        init_adapter: whether the reference is a frozen copy of the adapter that they start from, which then sets r.
        frozen: bytes of other adapters and bases, such as a reward model's.
        reference: whether a reference reads what the policy learns from.
        samples: responses to each prompt; 0 where nothing is sampled.
        max_new_tokens: limit of a response.
        reward_budget: tokens that pass through a trained reward at once; 0 without one.
        ptx_batch: demonstrations that are learned beside samples in an update; 0 without.
        ptx_tree: tokens of the longest of them.
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

    @property
    def longest(self) -> int:
        """Tokens of the largest group with all its responses."""
        return self.tree + self.num_generations * self.max_new_tokens

    def at_once(self, budget: int) -> int:
        """Tokens of the largest micro-batch: no more than a step has, no less than a group."""
        return max(min(budget, self.batch_size * self.longest), self.longest)

    def smaller(self) -> dict[str, Plan]:
        """Each setting that could be one step less, with the plan that it would make."""
        halved = {"data.token_budget": "token_budget", "model.reward.token_budget": "reward_budget"}
        if self.num_generations:
            halved |= {"model.num_generations": "num_generations", "data.batch_size": "batch_size"}
            halved |= {"model.max_new_tokens": "max_new_tokens"}
        else:
            halved["data.max_length"] = "tree"
        now = {setting: getattr(self, field) for setting, field in halved.items()}
        found = {
            s: replace(self, **{halved[s]: value // 2}) for s, value in now.items() if value > 1
        }
        if not self.gradient_checkpointing:
            found["model.gradient_checkpointing"] = replace(self, gradient_checkpointing=True)
        if self.base.quantization == "none":
            found["model.base.quantization"] = replace(
                self, base=replace(self.base, quantization="nf4")
            )
        if self.lora.r > 1 and not self.init_adapter:
            found["model.lora.r"] = replace(self, lora=replace(self.lora, r=self.lora.r // 2))
        return found

    def value(self, setting: str) -> str:
        """A setting as the YAML has it."""
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
    """Predicts for one model; nothing is loaded.

    Args:
        config: its settings.
        device: where it will run.
    """

    def __init__(self, config: PreTrainedConfig, device: torch.device | None = None) -> None:
        self.config, self.device = config, device or torch.device("cuda")
        self._shapes: dict[tuple[str, int], ModelShape] = {}

    def phases(self, plan: Plan) -> dict[str, Memory]:
        """The peak of each phase, once the optimiser has its moments."""
        shape = self._shape(plan)
        adapters = shape.adapter * (plan.trained + plan.init_adapter) + plan.frozen
        moments = 2 * shape.adapter * plan.trained

        def phase(kept: int, layer: int, head: int) -> Memory:
            return Memory(shape.weights, adapters, moments, kept, layer, head)

        tokens = plan.at_once(plan.token_budget)
        share = (
            plan.num_generations * plan.max_new_tokens / plan.longest
            if plan.num_generations
            else plan.scored
        )
        scored = round(tokens * share)
        update = shape.update(
            tokens,
            scored,
            longest=plan.longest,
            gradient_checkpointing=plan.gradient_checkpointing,
            trained=plan.trained,
            frozen=shape.adapter * plan.init_adapter + plan.frozen,
            statistics=not plan.num_generations,
        )
        if plan.ptx_batch:
            alone = replace(
                plan,
                num_generations=0,
                trained=1,
                batch_size=plan.ptx_batch,
                tree=plan.ptx_tree,
                ptx_batch=0,
            )
            shown = self.phases(replace(alone, scored=1.0))["update"]
            update = max(
                update,
                replace(update, saved=shown.saved, layer=shown.layer, head=shown.head),
                key=lambda one: one.total,
            )
        found = {"load": Memory(shape.weights, adapters, 0, 0, shape.unpacked, 0)}
        if plan.num_generations:
            asked = plan.batch_size * plan.tree
            together = min(max(1, plan.token_budget // plan.tree), plan.batch_size)
            layer, head = shape.read(together * plan.tree, together, plan.tree)
            waiting = (
                4 * (plan.batch_size - together) * shape.vocabulary
            )  # logits of what was read before
            found["prefill"] = phase(shape.cache(asked), layer + waiting, head + waiting)
            rows, length = plan.batch_size * plan.num_generations, plan.tree + plan.max_new_tokens
            logits = rows * shape.vocabulary
            layer = shape.read(rows, 0, length)[0] + 4 * logits
            layer += (
                shape.cache(rows * length) // shape.layers // 2
            )  # keys are copied to become longer by one
            found["decode"] = phase(
                shape.cache(rows * length), layer, 20 * logits
            )  # a token is drawn in float64
        if plan.reward_budget:
            found["reward"] = phase(
                0, *shape.read(plan.at_once(plan.reward_budget), 0, plan.longest)
            )
        if plan.num_generations or not scored:
            found["score"] = phase(0, *shape.read(tokens, scored, plan.longest))
        elif plan.reference:  # while the policy's activations wait
            reads = shape.read(
                tokens, scored, plan.longest, adapted=plan.init_adapter, statistics=False
            )
            layer, head = (size + scored * shape.width * shape.size for size in reads)
            found["score"] = replace(update, layer=layer, head=head)
        return {**found, "update": update}

    def peak(self, plan: Plan) -> int:
        """The most bytes that any phase needs."""
        return max(memory.total for memory in self.phases(plan).values())

    def cures(self, plan: Plan, room: float) -> dict[str, Plan]:
        """Settings that lower the peak, each changed alone: until it is within ``room`` bytes, or an eighth is left."""
        found = {setting: self._changed(plan, setting, room) for setting in plan.smaller()}
        return {setting: changed for setting, changed in found.items() if changed is not plan}

    def verdict(self, plan: Plan, card: float) -> str:
        """Whether it fits on a card of ``card`` GiB, and what to change if it does not."""
        room = (card - OWN) * GIB
        said = f"{self._gib(plan)}, and {OWN} GiB for CUDA itself, on a card of {card:g} GiB"
        if self.peak(plan) <= room:
            whole = replace(plan, gradient_checkpointing=False)
            if not plan.gradient_checkpointing:
                return f"It fits: {said}."
            if self.peak(whole) <= room:
                return f"It fits: {said}. model.gradient_checkpointing could be false: {self._gib(whole)}, and faster."
            return f"It fits: {said}. It needs model.gradient_checkpointing: without it, {self._gib(whole)}."
        found = self.cures(plan, room)
        enough = {
            setting: changed for setting, changed in found.items() if self.peak(changed) <= room
        }
        if enough:
            offers = [
                f"{setting}: {one.value(setting)} ({self._gib(one)})"
                for setting, one in enough.items()
            ]
            return f"It does not fit: {said}. Enough would be {' or '.join(offers)}."
        best = sorted(found, key=lambda setting: self.peak(found[setting]))
        changed = plan
        for setting in best:
            changed = self._changed(changed, setting, room)
        told = [f"{s}: {changed.value(s)}" for s in best if changed.value(s) != plan.value(s)]
        end = "" if self.peak(changed) <= room else "; for less, take a smaller base"
        return f"It does not fit: {said}. It takes {', '.join(told)} together: {self._gib(changed)}{end}."

    def _changed(self, plan: Plan, setting: str, room: float) -> Plan:
        for _ in range(STEPS):
            less = plan.smaller().get(setting)
            if self.peak(plan) <= room or less is None or self.peak(less) >= self.peak(plan):
                break
            plan = less
        return plan

    def _gib(self, plan: Plan) -> str:
        return f"{self.peak(plan) / GIB:.2f} GiB"

    def _shape(self, plan: Plan) -> ModelShape:
        key = (plan.base.quantization, plan.lora.r)
        if key not in self._shapes:
            self._shapes[key] = ModelShape.from_config(
                self.config, plan.base, plan.lora, self.device
            )
        return self._shapes[key]
