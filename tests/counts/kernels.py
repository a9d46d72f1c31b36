"""Kernels that a GPU would run for one DPO step of an 8B model, counted on tensors without data.

The model is the real one, in 4 bits with adapters, of one and of two layers; what a layer adds is counted 32 times. A
product with 4-bit weights counts as one kernel.
"""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from lit_align.models.adapter_set import AdapterSet, Lora
from lit_align.models.tree_forward import TreeForward
from lit_align.types import PackedTrees

LAYERS = 32
BLOCK, ABSMAX_BLOCK = 64, 256

VIEWS = set(
    [
        "view",
        "_unsafe_view",
        "t",
        "transpose",
        "expand",
        "permute",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "as_strided",
        "detach",
        "alias",
        "reshape",
        "split",
        "unbind",
        "split_with_sizes",
        "narrow",
        "lift_fresh",
        "_reshape_alias",
        "chunk",
        "diagonal",
        "unfold",
        "is_same_size",
        "new_empty",
        "new_empty_strided",
    ]
)
"""Operations that start no kernel, beside those whose name begins with empty."""


class Kernels(TorchDispatchMode):
    """While it is active, counts operations that start a kernel.

    Attributes:
        counts: by name.
    """

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in VIEWS and not name.startswith("empty"):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class _FusedNorm(torch.autograd.Function):
    """One kernel in each direction, as CUDA has them for the norm; without data torch takes it apart."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx, grad):
        _, weight = ctx.saved_tensors
        return grad * weight, None


def _fused_norm(x: Tensor, shape, weight: Tensor, eps: float) -> Tensor:
    return _FusedNorm.apply(x, weight)


def dpo_step_kernels(trees: int, prompt: int, response: int) -> int:
    """Kernels of policy forward, reference forward and backward of one micro-batch, with checkpointing.

    Args:
        trees: pairs in the micro-batch, each in a row.
        prompt: tokens.
        response: tokens of each of the two.
    """
    batch = _batch(trees, prompt, response)
    thin, thicker = (_counted_step(layers, batch) for layers in (1, 2))
    return thin + (LAYERS - 1) * (thicker - thin)


def _counted_step(layers: int, batch: PackedTrees) -> int:
    adapters = AdapterSet(_llama_8b(layers), Lora(r=16, alpha=32), gradient_checkpointing=True)
    adapters.peft.train()
    forward = TreeForward(adapters.model)
    forward.head, forward.layout = "fused", "trees"
    attention = (
        "transformers.integrations.sdpa_attention.torch.nn.functional.scaled_dot_product_attention"
    )
    norm = patch("torch.nn.functional.rms_norm", _fused_norm)
    with patch(attention, _efficient_attention), norm, Kernels() as kernels:
        policy = forward(batch).logps
        with torch.no_grad(), adapters.activate("reference", training=False):
            reference = forward(batch).logps
        (policy - reference).sum().backward()
    return kernels.counts.total()


def _batch(trees: int, prompt: int, response: int) -> PackedTrees:
    cells = torch.zeros(trees, prompt + 2 * response, dtype=torch.long, device="meta")
    scored = torch.zeros(2 * trees * response, dtype=torch.long, device="meta")
    return PackedTrees(cells, cells, cells, cells, scored, scored, scored, 2 * trees)


def _llama_8b(layers: int) -> LlamaForCausalLM:
    """Llama of 8 billion weights in 4 bits, but for the number of its layers."""
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=layers, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Linear) and name != "lm_head":
                model.set_submodule(name, _four_bit(module))
    model.requires_grad_(False)
    model.name_or_path, model.is_loaded_in_4bit = "8b", True
    return model


def _four_bit(linear: nn.Linear) -> Linear4bit:
    size = linear.weight.numel()
    scales = QuantState(
        absmax=torch.empty(size // BLOCK // ABSMAX_BLOCK + 1), code=torch.empty(256), blocksize=ABSMAX_BLOCK,
        dtype=torch.float32,
    )  # fmt: skip
    state = QuantState(
        absmax=torch.empty(size // BLOCK, dtype=torch.uint8), shape=linear.weight.shape, dtype=torch.bfloat16,
        blocksize=BLOCK, code=torch.empty(16), quant_type="nf4", state2=scales, offset=torch.empty(()),
    )  # fmt: skip
    layer = Linear4bit(
        linear.in_features, linear.out_features, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
    )  # fmt: skip
    layer.weight = Params4bit(
        torch.empty(size // 2, 1, dtype=torch.uint8), requires_grad=False, quant_state=state, bnb_quantized=True,
        module=layer, quant_type="nf4", blocksize=BLOCK,
    )  # fmt: skip
    layer.quant_state, layer.support_avx512bf16_for_cpu = state, False
    return layer


def _efficient_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p=0.0, is_causal=False,
    scale=None, enable_gqa=False,
) -> Tensor:  # fmt: skip
    """What CUDA makes of attention: a bias of a boolean mask in each layer, and its memory-efficient kernel."""
    bias = attn_mask
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros(bias.shape, dtype=query.dtype, device="meta").masked_fill_(bias, 0.0)
    if bias is not None:
        bias = bias.expand(*query.shape[:3], key.shape[2])
    with_gradient = torch.is_grad_enabled() and query.requires_grad
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, with_gradient, dropout_p, is_causal, scale=scale
    )[0]
