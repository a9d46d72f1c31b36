"""Floating-point operations of our step: counted on the running model, and worked out from the trees."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from lit_align.batches import Batch
from lit_align.data.packing import pack

from . import our_side

_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _attention(query, key, *_, out_shape=None, **__) -> int:
    rows, heads, length, width = query
    return 4 * rows * heads * length * key[2] * width  # q k' and p v


def _attention_backward(_, query, key, *__, out_shape=None, **___) -> int:
    return _attention(query, key) * 5 // 2  # five products of that size instead of two


def counted(job: dict, rows: list[dict]) -> int:
    """What one step does, reference pass included, as PyTorch's counter sees it."""
    stage = our_side.stage(job)
    stage.roles.peft.train()
    known = {_CPU: _attention, _CPU_BACKWARD: _attention_backward}  # the counter leaves out attention on CPUs
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        for batch in _batches(job, rows):
            loss, _ = stage.losses(batch, statistics=False)
            loss.backward()
    return counter.get_total_flops()


def expected(job: dict, rows: list[dict]) -> int:
    """The same from sizes alone: every token of a tree is read once, and only scored tokens meet the head.

    With N weights in the body's linear layers, A in the adapters, h = V d in the head, D tokens and n scored ones: the
    reference reads at 2 (N D + h n), the policy at 2 ((N + A) D + h n); its backward pass has the same again for
    activations and 2 A D for the adapters' weights, less what would flow into the first layer's input. Attention over a row of T tokens
    is 4 T^2 n_heads d_head a layer forward and 5/2 of it backward.
    """
    model = our_side.stage(job).roles.peft
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    body = {n: m.weight.numel() for n, m in linear.items() if ".base_layer" in n}
    lora = {n: m.weight.numel() for n, m in linear.items() if ".lora_" in n}
    into_first = [n for n in linear if ".layers.0.self_attn." in n and "o_proj" not in n and "lora_B" not in n]
    unneeded = sum(({**body, **lora})[n] for n in into_first)
    head = model.get_output_embeddings().weight.numel()
    config = model.get_base_model().config
    width = config.num_attention_heads * config.head_dim * config.num_hidden_layers
    N, A = sum(body.values()), sum(lora.values())  # noqa: N806 - as in the formula
    total = 0
    for batch in _batches(job, rows):
        D = sum(tree.tokens for tree in batch.source)  # noqa: N806
        n = len(batch.trees.target)
        attention = 4 * batch.trees.input_ids.numel() * batch.trees.input_ids.shape[1] * width
        reference = 2 * (N * D + head * n) + attention
        forward = 2 * ((N + A) * D + head * n) + attention
        backward = 2 * ((N + 2 * A - unneeded) * D + head * n) + attention * 5 // 2
        total += reference + forward + backward
    return total


def _batches(job: dict, rows: list[dict]) -> list[Batch]:
    return pack([our_side.tree(row) for row in rows], job["token_budget"], dense=True)
