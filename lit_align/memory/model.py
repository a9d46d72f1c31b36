"""What a model takes in memory, predicted from its settings: weights, adapters, a pass over tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from lit_align.errors import TrainingError
from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.load import Base, compute_dtype
from lit_align.types import PackedTrees

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes at a peak, by part; what CUDA takes for itself, about 1.5 GiB, comes on top.

    Args:
        weights: the frozen base.
        adapters: of all roles.
        optimiser: the two moments of AdamW, and gradients while there are any.
        saved: activations that wait for the backward pass, or keys and values of what was sampled so far.
        layer: what one layer computes with.
        head: what the head computes with, beyond what waits by then.
    """

    weights: int
    adapters: int
    optimiser: int
    saved: int
    layer: int
    head: int

    @property
    def total(self) -> int:
        """The peak; head and layers work one after the other."""
        return (
            self.weights + self.adapters + self.optimiser + self.saved + max(self.layer, self.head)
        )

    def __str__(self) -> str:
        parts = {"weights": self.weights, "adapters and optimiser": self.adapters + self.optimiser}
        parts |= {"activations": self.saved + max(self.layer, self.head)}
        return f"{self.total / GIB:.2f} GiB ({', '.join(f'{name} {size / GIB:.2f}' for name, size in parts.items())})"


def predict_memory(
    config: PreTrainedConfig,
    base: Base,
    lora: Lora,
    tokens: int,
    scored: int,
    *,
    gradient_checkpointing: bool = True,
    longest: int | None = None,
    trained: int = 1,
    reference_adapter: bool = False,
    device: torch.device | None = None,
) -> Memory:
    """Predict the peak of one micro-batch through a decoder with gated feed-forward layers, as in Llama.

    Args:
        config: the model's settings.
        base: how it is loaded.
        lora: the policy's adapter.
        tokens: of the micro-batch.
        scored: how many of them are learned from.
        gradient_checkpointing: whether activations are recomputed.
        longest: tokens of a row; None if there is one.
        trained: roles that learn.
        reference_adapter: whether the reference is an adapter too.
        device: where it will run; a GPU when there is one.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = ModelShape.from_config(config, base, lora, device)
    frozen = shape.adapter * reference_adapter
    longest = min(longest or tokens, tokens)
    return shape.update(
        tokens,
        scored,
        longest=longest,
        gradient_checkpointing=gradient_checkpointing,
        trained=trained,
        frozen=frozen,
    )


def out_of_memory_message(
    config: PreTrainedConfig,
    base: Base,
    lora: Lora,
    tokens: int,
    scored: int,
    *,
    gradient_checkpointing: bool = True,
    **more: Any,
) -> str:
    """For when a step did not fit, arguments as for `predict_memory`: three settings that would help, and how much."""

    def predicted(base: Base, lora: Lora, share: int, gradient_checkpointing: bool) -> Memory:
        return predict_memory(
            config,
            base,
            lora,
            tokens // share,
            scored // share,
            gradient_checkpointing=gradient_checkpointing,
            **more,
        )

    cures = {f"data.token_budget: {tokens // 2}": predicted(base, lora, 2, gradient_checkpointing)}
    if base.quantization == "none":
        cures["base.quantization: nf4"] = predicted(
            replace(base, quantization="nf4"), lora, 1, gradient_checkpointing
        )
    if not gradient_checkpointing:
        cures["gradient_checkpointing: true"] = predicted(base, lora, 1, True)
    if len(cures) == 1:  # a conversation longer than the budget is still one row
        cures[f"data.max_length: {tokens // 2}"] = cures[f"data.token_budget: {tokens // 2}"]
    if len(cures) == 2:
        smaller = max(1, lora.r // 2)
        cures[f"lora.r: {smaller}"] = predicted(
            base, replace(lora, r=smaller), 1, gradient_checkpointing
        )
    offers = [f"{setting} ({memory.total / GIB:.2f} GiB)" for setting, memory in cures.items()]
    now = predicted(base, lora, 1, gradient_checkpointing)
    return f"out of memory with {tokens} tokens, predicted {now}; try {', '.join(offers[:-1])} or {offers[-1]}"


@contextmanager
def explain_out_of_memory(
    adapters: AdapterSet, base: Base, lora: Lora, trees: PackedTrees, gradient_checkpointing: bool
) -> Iterator[None]:
    """Say which settings would have made it fit when memory runs out over these trees.

    Raises:
        TrainingError: instead of what torch raises.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        scored = (
            len(trees.target) if "policy" in adapters.trained_roles else 0
        )  # who only scores asks for no words
        cure = out_of_memory_message(
            adapters.model.config,
            base,
            lora,
            trees.input_ids.numel(),
            scored,
            gradient_checkpointing=gradient_checkpointing,
            longest=trees.input_ids.shape[1],
            trained=len(adapters.trained_roles),
            reference_adapter=bool(adapters.parameters_for("reference")),
            device=trees.input_ids.device,
        )
        raise TrainingError(cure) from error


@dataclass(frozen=True)
class ModelShape:
    """What of a model decides the room that it takes: counts of numbers, and bytes of one.

    Args:
        weights: bytes of the frozen base.
        adapter: bytes of one adapter, which is kept in float32.
        r: its rank.
        size: bytes of a number in what is computed.
        unpacked: bytes of the largest weight that is unpacked to be used; 0 if they are kept whole.
        layers: how many there are.
        width: numbers that pass from layer to layer, for each token.
        inner: numbers between the feed-forward projections.
        heads: numbers in the queries of all heads.
        cached: numbers in keys and values of a layer.
        vocabulary: logits of a token.
        masked: whether attention takes a mask for each pair of tokens.
    """

    weights: int
    adapter: int
    r: int
    size: int
    unpacked: int
    layers: int
    width: int
    inner: int
    heads: int
    cached: int
    vocabulary: int
    masked: bool

    @classmethod
    def from_config(
        cls, config: PreTrainedConfig, base: Base, lora: Lora, device: torch.device
    ) -> ModelShape:
        """Count, without memory, in a model that has shapes and nothing else."""
        from transformers import AutoModelForCausalLM
        from transformers.pytorch_utils import Conv1D

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        head, modules = model.get_output_embeddings(), model.named_modules()
        linear = {
            n: m.weight.shape
            for n, m in modules
            if isinstance(m, torch.nn.Linear | Conv1D) and m is not head
        }
        everywhere = lora.targets == "all-linear"
        adapted = [
            shape for n, shape in linear.items() if everywhere or n.split(".")[-1] in lora.targets
        ]
        packed = sum(shape.numel() for shape in linear.values())
        whole = sum(parameter.numel() for parameter in model.parameters()) - packed
        size, nf4 = compute_dtype(base, device).itemsize, base.quantization == "nf4"
        text = config.get_text_config()
        one = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        pairs = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        return cls(
            # 4 bits a number, a byte of scale for 64 of them, and 4 bytes for 256 scales (QLoRA, section 3)
            weights=round(whole * size + packed * (0.5 + 1 / 64 + 4 / (64 * 256) if nf4 else size)),
            adapter=4 * lora.r * sum(map(sum, adapted)),
            r=lora.r,
            size=size,
            unpacked=max(shape.numel() for shape in linear.values()) * size if nf4 else 0,
            layers=text.num_hidden_layers,
            width=text.hidden_size,
            inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            heads=text.num_attention_heads * one,
            cached=2 * pairs * one,
            vocabulary=text.vocab_size,
            masked=base.attention != "flex_attention",
        )

    def update(
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
        """Learning from one micro-batch.

        Args:
            tokens: of the micro-batch.
            scored: how many of them meet the language-model head.
            longest: tokens of a row; None if there is one.
            gradient_checkpointing: whether activations are recomputed.
            trained: roles that learn, and that wait for the backward pass together.
            frozen: bytes of adapters that do not learn.
            statistics: whether the head also reports entropy, which needs logits twice over.
        """
        d, f, size = self.width, self.inner, self.size
        saved = 8 * d  # what the two norms keep, in float32
        saved += (
            4 * self.heads * size + 3 * f * size
        )  # query, key, value, output; gate before and after its SiLU, up
        # What enters the adapters, in float32: one copy for each, or shared where that is what is computed in.
        saved += 4 * (2 * d + f if size == 4 else 5 * d + self.heads + f)
        saved += 7 * 4 * self.r
        saved += (
            (longest or tokens) * size * self.masked
        )  # the mask, a number for every pair of tokens
        kept, layer = (
            (self.layers * d * size, saved) if gradient_checkpointing else (self.layers * saved, 0)
        )
        kept += d * (4 + size)  # the last norm
        layer += f * (4 + size)  # gradients inside the feed-forward layer
        logit = 8 if statistics else 4 + size % 4
        head = self._chunk(scored) * self.vocabulary * logit + 2 * scored * d * size
        later = tokens * kept * (trained - 1)  # the head is done before the other roles begin
        later += scored * d * size * (trained > 1)  # its gradient waits for them
        return Memory(
            weights=self.weights,
            adapters=self.adapter * trained + frozen,
            optimiser=3 * self.adapter * trained,
            saved=tokens * kept + later,
            layer=tokens * layer + self.unpacked,
            head=max(0, head - later),
        )

    def read(
        self,
        tokens: int,
        scored: int,
        longest: int,
        *,
        adapted: bool = True,
        statistics: bool = True,
    ) -> tuple[int, int]:
        """Bytes that one layer and the head compute with when tokens are read without gradient."""
        d, f, size = self.width, self.inner, self.size
        around = 3 * d * size  # embeddings, what came into the layer, and its norm
        fed = around + d * size + f * 2 * size  # gate and up
        if adapted:  # in float32: what enters, and what is added, before and after it is scaled
            fed += 8 * f + (0 if size == 4 else 4 * d)
        attended = around + 7 * self.heads * size + longest * size * self.masked
        whole = self.unpacked + tokens * size * 2 * (d + f)
        mask = tokens * longest * self.masked
        head = scored * d * size + self._chunk(scored) * self.vocabulary * (
            8 if statistics else 4 + size % 4
        )
        return mask + max(tokens * max(fed, attended), whole), head

    def cache(self, tokens: int) -> int:
        """Bytes of the keys and values of so many tokens."""
        return tokens * self.layers * self.cached * self.size

    def _chunk(self, scored: int) -> int:
        return min(
            scored, max(64, min(1024, 2**24 // self.vocabulary))
        )  # as in functional/logps.py
