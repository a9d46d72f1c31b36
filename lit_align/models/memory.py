"""What a training step needs, predicted before it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from lit_align.models.load import Base, compute_dtype
from lit_align.models.roles import Lora

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of a training step, by part; what CUDA takes for itself, about 1.5 GiB, comes on top.

    Args:
        weights: the frozen base.
        adapters: the policy's and, if it has one, the reference's.
        optimiser: gradients and the two moments of AdamW.
        kept: activations that wait for the backward pass.
        layer: what one layer computes with, in the backward pass.
        head: logits of one chunk, and the gradient at the scored tokens.
    """

    weights: int
    adapters: int
    optimiser: int
    kept: int
    layer: int
    head: int

    @property
    def total(self) -> int:
        """The peak; head and layers work one after the other."""
        return self.weights + self.adapters + self.optimiser + self.kept + max(self.layer, self.head)

    def __str__(self) -> str:
        parts = {"weights": self.weights, "adapters and optimiser": self.adapters + self.optimiser}
        parts |= {"activations": self.kept + max(self.layer, self.head)}
        return f"{self.total / GIB:.2f} GiB ({', '.join(f'{name} {size / GIB:.2f}' for name, size in parts.items())})"


def predict_memory(
    config: PreTrainedConfig,
    base: Base,
    lora: Lora,
    tokens: int,
    scored: int,
    *,
    checkpointing: bool = True,
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
        checkpointing: whether activations are recomputed.
        reference_adapter: whether the reference is an adapter too.
        device: where it will run; a GPU when there is one.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = compute_dtype(base, device).itemsize
    inner, whole, adapted, largest = _shapes(config, lora)
    # 4 bits a number, a byte of scale for 64 of them, and 4 bytes for 256 scales (QLoRA, section 3)
    weights = whole * size + inner * (0.5 + 1 / 64 + 4 / (64 * 256) if base.quantization == "nf4" else size)

    text = config.get_text_config()
    d, layers, vocabulary = text.hidden_size, text.num_hidden_layers, text.vocab_size
    f = getattr(text, "intermediate_size", None) or 4 * d
    heads = text.num_attention_heads * (getattr(text, "head_dim", None) or d // text.num_attention_heads)
    saved = 8 * d  # what the two norms keep, in float32
    saved += 4 * heads * size + 3 * f * size  # query, key, value, output; gate before and after its SiLU, up
    # What enters the adapters, in float32: one copy for each, or shared where that is what is computed in.
    saved += 4 * (2 * d + f if size == 4 else 5 * d + heads + f)
    saved += 7 * 4 * lora.r
    saved += tokens * size if device.type == "cpu" else 0  # the mask, a number for every pair of tokens
    if checkpointing:
        kept, layer = layers * d * size, saved
    else:
        kept, layer = layers * saved, 0
    kept += d * (4 + size)  # the last norm
    layer += f * (4 + size)  # gradients inside the feed-forward layer
    rows = min(scored, max(64, min(1024, 2**24 // vocabulary)))  # as in functional/logps.py
    return Memory(
        weights=round(weights),
        adapters=4 * adapted * (1 + reference_adapter),
        optimiser=12 * adapted,
        kept=tokens * kept,
        layer=tokens * layer + (largest * size if base.quantization == "nf4" else 0),  # a weight is unpacked to be used
        head=rows * vocabulary * (8 if size == 4 else 10) + 2 * scored * d * size,
    )


def out_of_memory_message(
    config: PreTrainedConfig,
    base: Base,
    lora: Lora,
    tokens: int,
    scored: int,
    *,
    checkpointing: bool = True,
    **more: Any,
) -> str:
    """For when a step did not fit, arguments as for `predict_memory`: three settings that would help, and how much."""

    def predicted(base: Base, lora: Lora, share: int, checkpointing: bool) -> Memory:
        return predict_memory(config, base, lora, tokens // share, scored // share, checkpointing=checkpointing, **more)

    cures = {f"data.token_budget: {tokens // 2}": predicted(base, lora, 2, checkpointing)}
    if base.quantization == "none":
        cures["base.quantization: nf4"] = predicted(replace(base, quantization="nf4"), lora, 1, checkpointing)
    if not checkpointing:
        cures["checkpointing: true"] = predicted(base, lora, 1, True)
    if len(cures) == 1:  # a conversation longer than the budget is still one row
        cures[f"data.max_length: {tokens // 2}"] = cures[f"data.token_budget: {tokens // 2}"]
    if len(cures) == 2:
        smaller = max(1, lora.r // 2)
        cures[f"lora.r: {smaller}"] = predicted(base, replace(lora, r=smaller), 1, checkpointing)
    offers = [f"{setting} ({memory.total / GIB:.2f} GiB)" for setting, memory in cures.items()]
    now = predicted(base, lora, 1, checkpointing)
    return f"out of memory with {tokens} tokens, predicted {now}; try {', '.join(offers[:-1])} or {offers[-1]}"


def _shapes(config: PreTrainedConfig, lora: Lora) -> tuple[int, int, int, int]:
    """Weights in linear layers, other weights, weights of an adapter, weights of the largest linear layer."""
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    head = model.get_output_embeddings()
    linear = {
        n: m.weight.shape for n, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D) and m is not head
    }
    everywhere = lora.targets == "all-linear"
    adapted = [shape for n, shape in linear.items() if everywhere or n.split(".")[-1] in lora.targets]
    inner = sum(shape.numel() for shape in linear.values())
    whole = sum(parameter.numel() for parameter in model.parameters()) - inner
    return inner, whole, lora.r * sum(map(sum, adapted)), max(shape.numel() for shape in linear.values())
