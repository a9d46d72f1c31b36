"""Memory of a model, predicted from its settings: weights, adapters, and a pass over tokens."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from lit_align.functional.logps import chunk_rows
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.inventory import FLOAT32, GIB, Inventory
from lit_align.models.load import Base
from lit_align.models.lora import Lora
from lit_align.models.out_of_memory import raise_out_of_memory
from lit_align.types import PackedTrees

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedConfig


# Counts of tensors in one layer, from the implementation of Llama in transformers with the layers of `models.fused`.
PROJECTIONS = 7
"""Linear layers with an adapter: query, key, value, output; gate, up, down."""
RESIDUAL_SAVED = 4
"""Tensors of the hidden width saved for the backward pass: the inputs and outputs of both norms."""
ATTENTION_SAVED = 4
"""Tensors of the heads' width saved for the backward pass: query, key, value, output."""
FEED_FORWARD_SAVED = 2
"""Tensors of the intermediate width saved for the backward pass: gate and up."""
FEED_FORWARD_BACKWARD = 3
"""Tensors of the intermediate width in the backward pass: the gradients of gate and up, and of their product."""
ATTENTION_FORWARD = 7
"""Tensors of the heads' width at the peak of attention without gradient: query and key before and after the rotary
embedding, key and value repeated for grouped heads, output."""
RESIDUAL_FORWARD = 3
"""Tensors of the hidden width throughout a layer without gradient: embeddings, layer input, its norm."""
FEED_FORWARD_FORWARD = 2
"""Tensors of the intermediate width without gradient: gate, up."""

EXPERT_GRADIENT = 1 / 3
"""Share of an experts' copy that the gradients add at the peak: down, while gate and up wait for their own."""


@dataclass(frozen=True)
class Memory:
    """Bytes at a peak, by part; CUDA itself takes about 1.5 GiB on top.

    Args:
        weights: the frozen base.
        adapters: of all roles.
        optimiser: the two moments of AdamW, and gradients while there are any.
        saved: activations saved for the backward pass, or keys and values of the tokens sampled so far.
        layer: the working memory of one layer.
        head: the working memory of the head, beyond what is saved by then.
    """

    weights: int
    adapters: int
    optimiser: int
    saved: int
    layer: int
    head: int

    @property
    def working(self) -> int:
        """Working memory; head and layers are computed one after the other."""
        return max(self.layer, self.head)

    @property
    def total(self) -> int:
        """The peak."""
        return self.weights + self.adapters + self.optimiser + self.saved + self.working

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "adapters and optimiser": self.adapters + self.optimiser,
            "activations": self.saved + self.working,
        }
        text = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
        return f"{self.total / GIB:.2f} GiB ({text})"


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch through a decoder with gated feed-forward layers, as in Llama.

    Args:
        config: the model's configuration.
        base: how it is loaded.
        lora: settings of the trained adapters.
        tokens: of the micro-batch.
        scored: tokens that are learned from.
        gradient_checkpointing: whether activations are recomputed.
        longest: tokens of a row; None if there is one row.
        trained: number of trained roles.
        reference_adapter: whether the reference is an adapter too.
        device: where it will run; a GPU when there is one.
    """

    config: PreTrainedConfig
    base: Base
    lora: Lora
    tokens: int
    scored: int
    gradient_checkpointing: bool = True
    longest: int | None = None
    trained: int = 1
    reference_adapter: bool = False
    device: torch.device | None = None

    def predict_memory(self) -> Memory:
        """The peak of the training step."""
        default = "cuda" if torch.cuda.is_available() else "cpu"
        device = self.device or torch.device(default)
        shape = ModelShape.from_config(self.config, self.base, self.lora, device)
        return shape.training_memory(
            self.tokens,
            self.scored,
            longest=min(self.longest or self.tokens, self.tokens),
            gradient_checkpointing=self.gradient_checkpointing,
            trained=self.trained,
            frozen=shape.adapter * self.reference_adapter,
        )

    def out_of_memory_message(self) -> str:
        """Error message for a step that did not fit: two or three settings that would help, and how much."""
        half_tokens = self.tokens // 2
        half = replace(self, tokens=half_tokens, scored=self.scored // 2)
        fixes = {f"data.token_budget: {half_tokens}": half}
        if self.base.quantization == "none":
            base = replace(self.base, quantization="nf4")
            fixes["base.quantization: nf4"] = replace(self, base=base)
        if not self.gradient_checkpointing:
            fixes["gradient_checkpointing: true"] = replace(self, gradient_checkpointing=True)
        if len(fixes) == 1:  # a conversation longer than the budget is still one row
            fixes[f"data.max_length: {half_tokens}"] = half
        if len(fixes) == 2:
            rank = max(1, self.lora.r // 2)
            fixes[f"lora.r: {rank}"] = replace(self, lora=replace(self.lora, r=rank))
        offers = []
        for setting, batch in fixes.items():
            offers.append(f"{setting} ({batch.predict_memory().total / GIB:.2f} GiB)")
        return (
            f"out of memory with {self.tokens} tokens, predicted {self.predict_memory()}; try "
            f"{', '.join(offers[:-1])} or {offers[-1]}"
        )


def explain_out_of_memory(
    adapters: AdapterSet, base: Base, lora: Lora, trees: PackedTrees, gradient_checkpointing: bool
) -> AbstractContextManager[None]:
    """Name the settings that would help when a training step over ``trees`` runs out of memory.

    Raises:
        TrainingError: inside, instead of torch's error.
    """

    def message() -> str:
        trains_policy = "policy" in adapters.trained_roles
        batch = MicroBatch(
            adapters.model.config,
            base,
            lora,
            tokens=trees.input_ids.numel(),
            scored=len(trees.target) if trains_policy else 0,  # score heads need no logits
            gradient_checkpointing=gradient_checkpointing,
            longest=trees.input_ids.shape[1],
            trained=len(adapters.trained_roles),
            reference_adapter=bool(adapters.parameters_for("reference")),
            device=trees.input_ids.device,
        )
        return batch.out_of_memory_message()

    return raise_out_of_memory(message)


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that decide its memory.

    Args:
        weights: bytes of the frozen base.
        adapter: bytes of one adapter, in float32.
        rank: of the adapter.
        itemsize: bytes of a number in the compute dtype.
        unpacked: bytes of the largest weight that is dequantized for its product; 0 without quantization.
        layers: how many there are.
        hidden: numbers of a token's hidden state.
        intermediate: numbers of a token between the feed-forward projections.
        query: numbers of a token's queries, all heads together.
        key_value: numbers of a token's keys and values in one layer.
        vocabulary: logits of a token.
        has_mask: whether attention takes a mask with a number for each pair of tokens.
        merged: bytes of a copy of the experts with their adapters, in each layer that adapts experts.
        has_dropout: whether adapters have dropout, with which layers are not fused in training.
        in_layers: those bytes of the weights that are in decoder layers, which can be divided among processes.
    """

    weights: int
    adapter: int
    rank: int
    itemsize: int
    unpacked: int
    layers: int
    hidden: int
    intermediate: int
    query: int
    key_value: int
    vocabulary: int
    has_mask: bool
    merged: tuple[int, ...] = ()
    has_dropout: bool = False
    in_layers: int = 0

    @classmethod
    def from_config(
        cls, config: PreTrainedConfig, base: Base, lora: Lora, device: torch.device
    ) -> ModelShape:
        """Count in the inventory of the model, which is not loaded."""
        inventory = Inventory.from_base(config, base, lora, device)
        return cls.from_inventory(inventory, config, base, lora)

    @classmethod
    def from_inventory(
        cls, inventory: Inventory, config: PreTrainedConfig, base: Base, lora: Lora
    ) -> ModelShape:
        """Count in an inventory that is made already, of this base with these adapters."""
        text = config.get_text_config()
        heads = getattr(text, "num_attention_heads", None) or 1  # state-space models have none
        head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
        key_value_heads = getattr(text, "num_key_value_heads", None) or heads
        return cls(
            weights=inventory.weight_bytes,
            adapter=inventory.adapter_bytes,
            rank=lora.r,
            itemsize=inventory.itemsize,
            unpacked=inventory.unpacked_bytes,
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            query=heads * head_size,
            key_value=2 * key_value_heads * head_size,
            vocabulary=text.vocab_size,
            has_mask=base.attention != "flex_attention",
            merged=tuple(inventory.merged_bytes),
            has_dropout=lora.dropout > 0,
            in_layers=inventory.layer_bytes,
        )

    def divided(self, shards: int) -> ModelShape:
        """With the share of one process in the weights, and two whole layers: that in use, and the next one.

        Args:
            shards: processes that the layers are divided among.
        """
        if shards == 1:
            return self
        gathered = 2 * self.in_layers // self.layers
        share = self.in_layers // shards
        return replace(
            self, weights=self.weights - self.in_layers + min(share + gathered, self.in_layers)
        )

    def training_memory(
        self,
        tokens: int,
        scored: int,
        *,
        longest: int | None = None,
        gradient_checkpointing: bool = True,
        trained: int = 1,
        frozen: int = 0,
        statistics: bool = True,
    ) -> Memory:
        """Memory of forward and backward pass over one micro-batch.

        Args:
            tokens: of the micro-batch.
            scored: tokens that meet the language-model head.
            longest: tokens of a row; None if there is one row.
            gradient_checkpointing: whether activations are recomputed.
            trained: number of trained roles, whose activations wait for the backward pass together.
            frozen: bytes of adapters that are not trained.
            statistics: whether the head also computes entropy, which needs the logits twice.
        """
        saved_by_layer = self._saved_by_layer()
        if gradient_checkpointing:
            saved = self.layers * self.hidden * self.itemsize
            layer = saved_by_layer
        else:
            saved = self.layers * saved_by_layer
            layer = 0
        saved += 2 * self.hidden * self.itemsize  # the last norm, and the gradient of its output
        if self.has_mask:
            saved += (longest or tokens) * self.itemsize  # one for all layers
        layer += FEED_FORWARD_BACKWARD * self.intermediate * self.itemsize
        # copies of experts with their adapters are saved for the backward pass, and there the gradient of one
        copies = max(self.merged, default=0)
        merged = 0 if gradient_checkpointing else sum(self.merged)
        working = self.unpacked + round(copies * EXPERT_GRADIENT)
        working += copies if gradient_checkpointing else 0
        scored_hidden = scored * self.hidden * self.itemsize
        head = self._logits(scored, statistics) + 2 * scored_hidden  # and its gradient
        other_roles = 0  # their activations come after the head is done, while its gradient waits
        if trained > 1:
            other_roles = (tokens * saved + merged) * (trained - 1) + scored_hidden
        return Memory(
            weights=self.weights,
            adapters=self.adapter * trained + frozen,
            optimiser=3 * self.adapter * trained,  # two moments and the gradient
            saved=tokens * saved + merged + other_roles,
            layer=tokens * layer + working,
            head=max(0, head - other_roles),
        )

    def _saved_by_layer(self) -> int:
        """Bytes that one layer saves for the backward pass, for each token."""
        numbers = RESIDUAL_SAVED * self.hidden + ATTENTION_SAVED * self.query
        numbers += FEED_FORWARD_SAVED * self.intermediate + PROJECTIONS * self.rank
        unfused = 0
        if (
            self.has_dropout
        ):  # each projection keeps its input in float32 after dropout, and which numbers it dropped
            inputs = 5 * self.hidden + self.query + self.intermediate
            unfused = inputs * (FLOAT32 + 1) + self.intermediate * self.itemsize
        return numbers * self.itemsize + unfused

    def forward_memory(
        self,
        tokens: int,
        scored: int,
        longest: int,
        *,
        adapted: bool = True,
        statistics: bool = True,
    ) -> tuple[int, int]:
        """Working memory of one layer and of the head in a pass without gradient.

        Args:
            tokens: of the pass.
            scored: tokens that meet the language-model head.
            longest: tokens of a row.
            adapted: whether an adapter is active.
            statistics: whether the head also computes entropy.
        """
        itemsize = self.itemsize
        residual = RESIDUAL_FORWARD * self.hidden * itemsize
        feed_forward = residual + self.hidden * itemsize
        feed_forward += FEED_FORWARD_FORWARD * self.intermediate * itemsize
        attention = residual + ATTENTION_FORWARD * self.query * itemsize
        if self.has_mask:
            attention += longest * itemsize
        # while the largest weight is dequantized: input and output of its product, and of its adapter
        unpacked = self.unpacked + tokens * itemsize * 2 * (self.hidden + self.intermediate)
        layer = max(tokens * max(feed_forward, attention), unpacked)
        if self.has_mask:
            layer += tokens * longest  # the boolean mask
        if adapted:
            layer += max(self.merged, default=0)
        head = scored * self.hidden * itemsize + self._logits(scored, statistics)
        return layer, head

    def cache(self, tokens: int) -> int:
        """Bytes of the key-value cache of so many tokens."""
        return tokens * self.layers * self.key_value * self.itemsize

    def _logits(self, scored: int, statistics: bool) -> int:
        """Bytes of the logits that `functional.logps` computes at once."""
        rows = min(scored, chunk_rows(self.vocabulary))
        logit = (
            FLOAT32 + self.itemsize % FLOAT32
        )  # with the gradient, where that is in half precision
        if statistics:
            logit = 2 * FLOAT32  # logits and probabilities
        return rows * self.vocabulary * logit
