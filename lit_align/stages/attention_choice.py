"""Choose a model's attention on a GPU: what takes least time for a training pass over packed trees."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_align.data.packing import pack
from lit_align.data.transfer import batches_to_device
from lit_align.functional.trees import FLEX_BLOCK_SIZE
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.check_once import check_key
from lit_align.models.load import cache_root
from lit_align.models.remembered import recall, remember
from lit_align.models.tree_check import MODEL_ERRORS, TreeCheck
from lit_align.models.tree_forward import TreeForward
from lit_align.stages.sharded_base import ShardedBase
from lit_align.types import Batch, Group, Tree

FASTEST = "fastest"
"""The value of ``base.attention`` that lets a run choose."""
CANDIDATES = ("sdpa", "flex_attention")
"""Implementations that read packed trees, beside the one that a model has."""

PASSES = 3
PROMPT, RESPONSE = 192, 160
"""Tokens of the trees that are timed, each with two responses."""
SHORT_PROMPT, SHORT_RESPONSE = 24, 20
"""Tokens of the tree whose gradient is compared, which is not checkpointed."""
MOST_TREES = 4


def fastest(candidates: Sequence[str], seconds: Callable[[str], float]) -> str:
    """The candidate that takes least time; one that cannot run is left out, and the first is taken if none can.

    Args:
        candidates: names of implementations.
        seconds: times one of them; raises one of `MODEL_ERRORS` if it cannot run.

    Example:
        >>> fastest(["sdpa", "flex_attention"], {"sdpa": 0.3, "flex_attention": 0.2}.__getitem__)
        'flex_attention'
        >>> fastest(["sdpa", "flex_attention"], {"sdpa": 0.3}.__getitem__)
        'sdpa'
    """
    times: dict[str, float] = {}
    for name in candidates:
        try:
            times[name] = seconds(name)
        except (
            *MODEL_ERRORS,
            UserWarning,
        ):  # the last is torch's when FlexAttention is not compiled
            continue
    return min(times, key=times.__getitem__) if times else candidates[0]


@dataclass(frozen=True)
class AttentionProbe:
    """Times training passes with one attention implementation or another; weights, gradients and modes stay.

    Args:
        adapters: the model with its adapters.
        forward: over packed trees.
        token_budget: tokens of a micro-batch.
        device: of the model.
    """

    adapters: AdapterSet
    forward: TreeForward
    token_budget: int
    device: torch.device

    @property
    def attention(self) -> str:
        """What the model has."""
        name: str = self.adapters.model.config.get_text_config()._attn_implementation
        return name

    def set_attention(self, attention: str) -> None:
        """Let the model compute with another implementation.

        Raises:
            ValueError: if it does not have that one.
        """
        if attention != self.attention:
            self.adapters.model.set_attn_implementation(attention)
            if attention != self.attention:  # older models only log that they cannot
                raise ValueError(f"the model keeps {self.attention}")

    def seconds(self, attention: str) -> float:
        """Time of a few passes, once everything is compiled; the model keeps this attention.

        Args:
            attention: as transformers names it.
        """
        self.set_attention(attention)
        self._passes(attention, 1)
        start = time.perf_counter()
        self._passes(attention, PASSES)
        return time.perf_counter() - start

    def gradient(self, attention: str) -> Tensor:
        """The gradient of a sum over packed trees by all adapter weights, ``[weights]``, without dropout.

        Args:
            attention: as transformers names it; the model keeps it.
        """
        self.set_attention(attention)
        weights = list(self.adapters.trainable().values())
        total = torch.zeros(sum(weight.numel() for weight in weights), device=self.device)
        with self.adapters.activate(self.adapters.trained_roles[0], training=False):
            for batch in self._batches(attention, [self._tree(SHORT_PROMPT, SHORT_RESPONSE)]):
                loss = self.forward.hidden(batch.trees).float().sum()
                gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
                total += torch.cat([gradient.float().flatten() for gradient in gradients])
        return total

    def _passes(self, attention: str, number: int) -> None:
        count = max(min(self.token_budget // (PROMPT + 2 * RESPONSE), MOST_TREES), 1)
        trees = [self._tree(PROMPT, RESPONSE, seed) for seed in range(count)]
        batches = self._batches(attention, trees)
        weights = list(self.adapters.trainable().values())
        gpus = [self.device] if self.device.type == "cuda" else []
        role = self.adapters.trained_roles[0]
        with torch.random.fork_rng(gpus), self.adapters.activate(role, training=True):
            for _ in range(number):
                for batch in batches:
                    loss = self.forward.hidden(batch.trees).float().sum()
                    torch.autograd.grad(loss, weights, allow_unused=True)
        if gpus:
            torch.cuda.synchronize(self.device)

    def _batches(self, attention: str, trees: list[Tree]) -> tuple[Batch, ...]:
        is_sparse = attention == "flex_attention"
        multiple = FLEX_BLOCK_SIZE if is_sparse else 1
        budget = max(self.token_budget, trees[0].tokens)
        packed = pack(trees, budget, multiple, dense=not is_sparse, few_shapes=True)
        return batches_to_device(packed, self.device)

    def _tree(self, prompt: int, response: int, seed: int = 0) -> Tree:
        """Random tokens with two responses."""
        embeddings: Any = self.adapters.model.get_input_embeddings()
        draw = random.Random(seed)
        ids = [draw.randrange(len(embeddings.weight)) for _ in range(prompt + response)]
        scored = [[True] * response] * 2
        return Tree(ids[:prompt], [ids[prompt:], ids[prompt:]], scored, Group("", ["", ""]))


def choose_attention(
    adapters: AdapterSet, forward: TreeForward, token_budget: int, strategy: Strategy
) -> str | None:
    """On a GPU the fastest attention, which the model then has; None where the model keeps what it has.

    Args:
        adapters: the model with its adapters.
        forward: over packed trees.
        token_budget: tokens of a micro-batch.
        strategy: of the run; all its processes take the choice of the first.
    """
    device = strategy.root_device
    if device.type != "cuda" or forward.layout == "rows" or isinstance(strategy, ShardedBase):
        return None  # a base that will be divided is not on the GPU yet
    probe = AttentionProbe(adapters, forward, token_budget, device)
    others = [name for name in CANDIDATES if name != probe.attention]
    choice = remembered_choice(probe, probe.seconds, [probe.attention, *others])
    name: str = strategy.broadcast(choice)
    probe.set_attention(name)
    rank_zero_info(f"attention: {name}, the fastest on this card")
    return name


def remembered_choice(
    probe: AttentionProbe,
    seconds: Callable[[str], float],
    candidates: Sequence[str],
) -> str:
    """The fastest attention that reads packed trees right, timed once for such a model on a machine.

    Args:
        probe: of the model, which has its usual attention.
        seconds: times an implementation.
        candidates: names of implementations, the usual one first.
    """
    key = check_key(probe.adapters.model)
    file = cache_root() / "attention" / f"{key}-{probe.token_budget}.json"
    known = recall(file).get("attention")
    if known in candidates:
        return str(known)
    name = fastest(candidates, partial(_seconds_if_right, probe, seconds, candidates[0]))
    remember(file, {"attention": name})
    return name


def _seconds_if_right(
    probe: AttentionProbe, seconds: Callable[[str], float], usual: str, attention: str
) -> float:
    """Time of an implementation.

    Raises:
        ValueError: if it reads packed trees wrong, or its gradient is another one than by the usual implementation.
    """
    probe.set_attention(attention)
    with TreeCheck(probe.adapters.model) as check:
        error = check.find_error(lambda: probe.forward(check.trees))
    if error is not None:
        raise ValueError(error)
    if attention != usual:
        expected, gradient = probe.gradient(usual), probe.gradient(attention)
        difference = float((gradient - expected).norm() / expected.norm())
        if not difference <= tolerance(probe.adapters.model.dtype):
            raise ValueError(
                f"its gradient differs by {difference:.1e} from that of {CANDIDATES[0]}"
            )
    return seconds(attention)


def tolerance(dtype: torch.dtype) -> float:
    """Largest relative difference of two right gradients.

    Example:
        >>> tolerance(torch.bfloat16), tolerance(torch.float32)
        (0.03, 0.001)
    """
    return 1e-3 if dtype == torch.float32 else 0.03
