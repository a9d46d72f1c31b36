"""Measure the parts of a step: passes over micro-batches, decoding and the optimizer, on models of few layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

from lit_align.data.transfer import batches_to_device
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.generate import sample
from lit_align.models.load import Base, load_config
from lit_align.models.lora import Lora
from lit_align.models.tree_forward import TreeForward
from lit_align.throughput.short_model import short_model
from lit_align.throughput.work import Kind
from lit_align.types import Batch

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase

REPEATS = 5
"""Measurements of each part, after one that is not counted; their median is taken."""
DECODED = 9
"""Tokens that are decoded to measure the time of one."""
FEW_LAYERS = (1, 4)
"""Layers of the models that are measured; the time of more is extrapolated."""

Clock = Callable[[], float]


Work = Callable[[], object]
"""What is timed."""


@dataclass(frozen=True)
class ShortRun:
    """A model of few layers with the adapters of a run, and the work that is timed with it.

    Args:
        adapters: on that model.
        forward: over packed trees.
        tokenizer: decides which tokens end a response.
        has_reference_adapter: whether the reference is an adapter too.
    """

    adapters: AdapterSet
    forward: TreeForward
    tokenizer: PreTrainedTokenizerBase
    has_reference_adapter: bool = False

    def one_pass(self, kind: Kind, batch: Batch) -> Work:
        """A pass over a micro-batch."""
        (batch,) = batches_to_device((batch,), self.adapters.model.device)
        role = self.adapters.trained_roles[0]
        if kind == "read" and not self.has_reference_adapter:
            role = "reference"  # the base itself
        weights = list(self.adapters.trainable().values())
        is_training = kind.startswith("update")

        def run() -> None:
            with ExitStack() as stack:
                stack.enter_context(self.adapters.activate(role, training=is_training))
                if not is_training:
                    stack.enter_context(torch.no_grad())
                if kind.endswith("hidden"):
                    total = self.forward.hidden(batch.trees).float().sum()
                else:
                    total = self.forward(batch.trees, kind.endswith("entropy")).logps.sum()
                if is_training:
                    torch.autograd.grad(total, weights, allow_unused=True)

        return run

    def decoding(
        self, prompts: Sequence[list[int]], num_generations: int, tokens: int, budget: int
    ) -> Work:
        """Responses of so many tokens to prompts, decoded together."""

        def run() -> None:
            role = self.adapters.trained_roles[0]
            with self.adapters.activate(role, training=False) as model:
                sample(
                    model,
                    self.tokenizer,
                    prompts,
                    max_new_tokens=tokens,
                    num_generations=num_generations,
                    batch_size=len(prompts) * num_generations,
                    token_budget=budget,
                )

        return run

    def optimizer_step(self) -> Work:
        """A step of AdamW on all adapters."""
        weights = list(self.adapters.trainable().values())
        optimizer = torch.optim.AdamW(weights, lr=1e-6)
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        return optimizer.step


class PartTimes:
    """Times of the parts of a whole model, from those of its first layers; each is measured once.

    Args:
        base: the model.
        lora: settings of its adapters.
        roles: that are trained.
        tokenizer: of the base.
        gradient_checkpointing: whether activations are recomputed.
        device: that computes.
        clock: gives seconds.
        has_reference_adapter: whether the reference is an adapter too.
    """

    def __init__(
        self,
        base: Base,
        lora: Lora,
        roles: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        gradient_checkpointing: bool,
        device: torch.device,
        clock: Clock = time.perf_counter,
        has_reference_adapter: bool = False,
    ) -> None:
        count: int = load_config(base).get_text_config().num_hidden_layers
        self._layers, self._clock = count, clock
        self._runs: dict[int, ShortRun] = {}
        self._known: dict[object, float] = {}
        for layers in FEW_LAYERS if count > FEW_LAYERS[-1] else (count,):
            adapters = AdapterSet(
                short_model(base, layers, device), lora, trained_roles=roles,
                gradient_checkpointing=gradient_checkpointing,
            )  # fmt: skip
            adapters.peft.train()
            forward = TreeForward(adapters.model)
            self._runs[layers] = ShortRun(adapters, forward, tokenizer, has_reference_adapter)

    def passes(self, kind: Kind, batches: Sequence[Batch]) -> float:
        """Time of a pass over each of some micro-batches: the largest and the smallest are measured."""
        if not batches:
            return 0.0
        by_size = sorted(batches, key=_numbers)
        least, most = _numbers(by_size[0]), _numbers(by_size[-1])
        small, large = self._pass(kind, by_size[0]), self._pass(kind, by_size[-1])
        slope = (large - small) / (most - least) if most > least else 0.0
        return sum(small + slope * (_numbers(batch) - least) for batch in batches)

    def decoding(
        self, prompts: Sequence[list[int]], num_generations: int, tokens: int, budget: int
    ) -> float:
        """Time of responses that are decoded together.

        Args:
            prompts: token ids of the prompts.
            num_generations: responses to each.
            tokens: of a response.
            budget: tokens of prompts that are read at once.
        """
        # as long as they are half-way
        longer = [[*prompt, *prompt[:1] * (tokens // 2)] for prompt in prompts]
        first = self._seconds(lambda run: run.decoding(prompts, num_generations, 1, budget))
        few = self._seconds(lambda run: run.decoding(longer, num_generations, 1, budget))
        more = self._seconds(lambda run: run.decoding(longer, num_generations, DECODED, budget))
        return first + max(more - few, 0.0) / (DECODED - 1) * (tokens - 1)

    def optimizer(self) -> float:
        """Time of a step of the optimizer."""
        if "optimizer" not in self._known:
            self._known["optimizer"] = self._seconds(ShortRun.optimizer_step)
        return self._known["optimizer"]

    def _pass(self, kind: Kind, batch: Batch) -> float:
        key = (kind, *batch.trees.input_ids.shape, len(batch.trees.target))
        if key not in self._known:
            self._known[key] = self._seconds(lambda run: run.one_pass(kind, batch))
        return self._known[key]

    def _seconds(self, work_of: Callable[[ShortRun], Work]) -> float:
        """Time of some work with all layers; the short models take turns, so that a slow moment slows both."""
        works = {layers: work_of(run) for layers, run in self._runs.items()}
        for work in works.values():
            work()
        rounds = []
        for _ in range(REPEATS):
            times = {layers: self._time(work) for layers, work in works.items()}
            rounds.append(self._extrapolate(times))
        return median(rounds)

    def _extrapolate(self, times: dict[int, float]) -> float:
        if len(times) == 1:
            return times[self._layers]
        few, more = FEW_LAYERS
        return times[few] + (times[more] - times[few]) / (more - few) * (self._layers - few)

    def _time(self, work: Work) -> float:
        self._wait()
        start = self._clock()
        work()
        self._wait()
        return self._clock() - start

    def _wait(self) -> None:
        device = next(iter(self._runs.values())).adapters.model.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _numbers(batch: Batch) -> int:
    return batch.trees.input_ids.numel()
