"""Floating-point operations of a step: counted on the running models, and worked out from the trees."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from lit_align.data.packing import pack
from lit_align.models.load import Base, load_model
from lit_align.types import Batch

from . import our_side


def _attention(query, key, *_, out_shape=None, **__) -> int:
    rows, heads, length, width = query
    return 4 * rows * heads * length * key[2] * width  # q k' and p v


def _attention_backward(_, query, key, *__, out_shape=None, **___) -> int:
    return _attention(query, key) * 5 // 2  # five products of that size instead of two


def counted(step: Callable[[], None]) -> int:
    """Operations of ``step`` as PyTorch counts them, attention on CPUs included."""
    ops = torch.ops.aten  # the counter leaves out attention on CPUs
    known = {
        ops._scaled_dot_product_flash_attention_for_cpu: _attention,
        ops._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        step()
    return counter.get_total_flops()


def of_trl(job: dict, rows: list[dict]) -> int:
    """What one step of TRL does, reference pass included, as PyTorch's counter sees it."""
    from . import trl_side

    trainer = trl_side.trainer(
        load_model(Base(job["model"], quantization="none", dtype=job["dtype"])), job, rows
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    return counted(lambda: trainer.compute_loss(trainer.model, batch).backward())


def of_ours(job: dict, rows: list[dict]) -> tuple[int, int]:
    """What one step of ours does, reference pass included: counted, and by `expected`."""
    stage, batches = (
        our_side.stage(job),
        pack([our_side.tree(row) for row in rows], job["token_budget"], dense=True),
    )
    stage.adapters.peft.train()

    def step() -> None:
        for batch in batches:
            stage.losses(batch, statistics=False)[0].backward()

    return counted(step), expected(stage.adapters.peft, batches)


def expected(peft: torch.nn.Module, batches: list[Batch]) -> int:
    """The same from sizes alone: every token of a tree is read once, and only scored tokens meet the head.

    With N weights in the body's linear layers, A in the adapters, h = V d in the head, D tokens and n scored ones: the
    reference reads at 2 (N D + h n), the policy at 2 ((N + A) D + h n). Its backward pass costs as much again for
    activations, less what would flow into the first layer's input, and 2 A D for the adapters' weights. Attention over
    a row of T tokens is 4 T^2 n_heads d_head a layer forward and 5/2 of it backward.
    """
    linear = {
        name: module.weight.numel()
        for name, module in peft.named_modules()
        if type(module) is torch.nn.Linear
    }
    weights = sum(numel for name, numel in linear.items() if ".base_layer" in name)
    adapters = sum(numel for name, numel in linear.items() if ".lora_" in name)
    into_first = sum(
        numel
        for name, numel in linear.items()
        if ".layers.0.self_attn." in name and "o_proj" not in name and "lora_B" not in name
    )
    head = peft.get_output_embeddings().weight.numel()
    config = peft.get_base_model().config
    width = config.num_attention_heads * config.head_dim * config.num_hidden_layers
    total = 0
    for batch in batches:
        tokens, scored = sum(tree.tokens for tree in batch.source), len(batch.trees.target)
        attention = 4 * batch.trees.input_ids.numel() * batch.trees.input_ids.shape[1] * width
        total += 2 * (weights * tokens + head * scored) + attention  # reference
        total += 2 * ((weights + adapters) * tokens + head * scored) + attention  # policy
        total += (
            2 * ((weights + 2 * adapters - into_first) * tokens + head * scored)
            + attention * 5 // 2
        )
    return total
