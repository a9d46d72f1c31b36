"""Equality gates: trees against padded rows, against float64, before any figure is believed.

Every gate has a yardstick: an ordinary pass over padded rows in the same precision may be as far from float64 as it is,
and trees twice as far. So a wrong mask fails in bfloat16 too, and rounding does not.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from lit_align.data.packing import pack_rows
from lit_align.models.adapter_set import AdapterSet
from lit_align.models.generate import sample
from lit_align.models.lora import Lora
from lit_align.models.tree_forward import TreeForward
from lit_align.types import Group, PackedTrees, Tree
from tests.gpu.options import KitOptions
from tests.gpu.random_weights import random_model, with_plain_weights
from tests.gpu.shapes import llama_config, random_ids, word_tokenizer

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-3}
"""Relative errors that are always allowed."""
YARDSTICKS = 2.0
"""Times the error of padded rows that is allowed."""
SAMPLER_GAP = 0.2
"""Nats between log-probabilities while sampling and those of the scoring pass, in bfloat16."""
INITIALIZER_RANGE = 0.1
"""Standard deviation of the weights: large enough for every token to depend on those that it attends to."""

SMALL_ROWS = (((20, (9, 13)), (7, (5, 5))), ((5, (30, 4)),))
LARGE_ROWS = (((200, (90, 130)), (50, (300, 40))), ((128, (128, 128)),))
"""Rows of trees: tokens of the prompt, and of each response."""


def gates(options: KitOptions, forward_class: type[TreeForward] = TreeForward) -> dict:
    """All gates.

    Args:
        options: device and size.
        forward_class: what reads the trees; a test gives one that is wrong.
    """
    outcomes = {
        **whole_weight_gates(options, forward_class),
        "adapters on nf4": adapter_gate(options, forward_class),
        "nf4 checkpointing": checkpointing_gate(options),
        "sampling": sampling_gate(options),
    }
    failed = [name for name, outcome in outcomes.items() if not outcome["ok"]]
    return {"ok": not failed, "seed": options.seed, "failed": failed, "gates": outcomes}


def whole_weight_gates(options: KitOptions, forward_class: type[TreeForward]) -> dict[str, dict]:
    """Forward pass and gradient of all weights in the layers, for each attention and precision."""
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1024,
        initializer_range=INITIALIZER_RANGE,
    )
    rows = random_rows(LARGE_ROWS if not options.tiny else SMALL_ROWS, 1024, options.seed)
    torch.manual_seed(0)
    exact_model = LlamaForCausalLM(config).double().to(options.device)
    weights = layer_weights(exact_model)
    exact = passes(padded_logps(exact_model, rows), weights)
    outcomes = {}
    for attention in ("sdpa", "flex_attention"):
        for dtype in (torch.float32, torch.bfloat16):
            model = LlamaForCausalLM(config).to(options.device, dtype)
            model.load_state_dict(exact_model.state_dict())
            weights = layer_weights(model)
            model.set_attn_implementation("sdpa")
            padded = passes(padded_logps(model, rows), weights)
            model.set_attn_implementation(attention)
            trees = tree_passes(forward_class(model), rows, weights, options)
            name = f"{attention} {str(dtype).removeprefix('torch.')}"
            outcomes[name] = compare(trees, padded, exact, LIMITS[dtype])
    return outcomes


def adapter_gate(options: KitOptions, forward_class: type[TreeForward]) -> dict:
    """Forward pass and gradient of LoRA on NF4; the yardstick has the same numbers unpacked, in float64."""
    rows = random_rows(SMALL_ROWS, llama_config("tiny").vocab_size, options.seed)
    packed_model = tiny_nf4(options)
    plain_model = with_plain_weights(packed_model, torch.float64)
    adapters = adapted(packed_model)
    exact_adapters = adapted(plain_model)
    exact_adapters.double()
    exact = passes(padded_logps(exact_adapters.model, rows), exact_adapters.trainable())
    padded = passes(padded_logps(adapters.model, rows), adapters.trainable())
    forward = forward_class(adapters.model)
    trees = tree_passes(forward, rows, adapters.trainable(), options)
    return compare(trees, padded, exact, LIMITS[torch.bfloat16])


def checkpointing_gate(options: KitOptions) -> dict:
    """The gradient with activation checkpointing is the one without; as far as it repeats itself."""
    rows = random_rows(SMALL_ROWS, llama_config("tiny").vocab_size, options.seed)
    gradients = []
    for gradient_checkpointing in (False, False, True):
        model = tiny_nf4(options)
        adapters = adapted(model, gradient_checkpointing)
        adapters.peft.train()
        forward = TreeForward(adapters.model)
        passed = tree_passes(forward, rows, adapters.trainable(), options)
        gradients.append(passed["gradient"])
    first, repeated, checkpointed = gradients
    error = relative_error(checkpointed, first)
    limit = max(1e-3, YARDSTICKS * relative_error(repeated, first))
    return {"ok": error <= limit, "error": error, "limit": limit}


@torch.no_grad()
def sampling_gate(options: KitOptions) -> dict:
    """Log-probabilities of the tokens while they are sampled, against those of the scoring pass."""
    model = tiny_nf4(options)
    adapters = adapted(model)
    vocab_size = model.config.vocab_size
    generator = random.Random(options.seed)
    prompts = [random_ids(length, vocab_size, generator) for length in (3, 9, 20)]
    with adapters.activate("policy", training=False) as policy:
        completions = sample(
            policy,
            word_tokenizer(vocab_size),
            prompts,
            max_new_tokens=8,
            num_generations=2,
            seed=options.seed,
        )
        rows, sampled = [], []
        for prompt, generations in zip(prompts, completions, strict=True):
            rows.append([tree(prompt, [completion.ids for completion in generations])])
            for completion in generations:
                sampled += completion.logps
        scored = TreeForward(policy)(packed(rows, options)).logps
    gap = float((torch.tensor(sampled, device=scored.device) - scored).abs().max())
    return {"ok": gap <= SAMPLER_GAP, "error": gap, "limit": SAMPLER_GAP}


def tiny_nf4(options: KitOptions) -> Any:
    """Two layers in 4 bits, always the same numbers."""
    config = llama_config("tiny")
    config.initializer_range = INITIALIZER_RANGE
    return random_model(config, options.device)


def adapted(model: Any, gradient_checkpointing: bool = False) -> AdapterSet:
    """LoRA whose second matrices are not zero, the same numbers on whichever device and in whichever order."""
    adapters = AdapterSet(model, Lora(r=8), gradient_checkpointing=gradient_checkpointing, seed=3)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in sorted(adapters.trainable().items()):
            if "lora_B" in name:
                numbers = torch.randn(weight.shape, generator=generator) * INITIALIZER_RANGE
                weight.copy_(numbers)
    return adapters


def random_rows(layout: Any, vocab_size: int, seed: int) -> list[list[Tree]]:
    """Trees of random tokens, row by row."""
    generator = random.Random(seed)
    rows = []
    for row_layout in layout:
        row = []
        for prompt_length, response_lengths in row_layout:
            prompt = random_ids(prompt_length, vocab_size, generator)
            responses = [random_ids(n, vocab_size, generator) for n in response_lengths]
            row.append(tree(prompt, responses))
        rows.append(row)
    return rows


def tree(prompt: list[int], responses: list[list[int]]) -> Tree:
    """A prompt with responses, all of whose tokens are scored."""
    scored = [[True] * len(response) for response in responses]
    return Tree(prompt, responses, scored, Group("", [""] * len(responses)))


def packed(rows: list[list[Tree]], options: KitOptions) -> PackedTrees:
    """The trees side by side on the device."""
    return pack_rows(rows).trees.to(options.device)


def padded_logps(model: Any, rows: list[list[Tree]]) -> Tensor:
    """Log-probabilities of all response tokens by an ordinary pass, each response behind its prompt in a padded row."""
    texts = []
    for row in rows:
        for branch in row:
            texts += [(branch.prompt, response) for response in branch.responses]
    width = max(len(prompt) + len(response) for prompt, response in texts)
    ids = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, (prompt, response) in enumerate(texts):
        length = len(prompt) + len(response)
        ids[index, :length] = torch.tensor(prompt + response)
        mask[index, :length] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    token_logps = log_probs[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    parts = []
    for index, (prompt, response) in enumerate(texts):
        start = len(prompt) - 1
        parts.append(token_logps[index, start : start + len(response)])
    return torch.cat(parts)


def tree_passes(
    forward: TreeForward,
    rows: list[list[Tree]],
    weights: Mapping[str, nn.Parameter],
    options: KitOptions,
) -> dict[str, Tensor]:
    """Log-probabilities and gradient over packed trees; on a CPU, FlexAttention has no gradient."""
    attention = forward.model.config._attn_implementation
    is_forward_only = options.device.type == "cpu" and attention == "flex_attention"
    # compiling takes minutes on a CPU, and what is compiled is not what a GPU runs
    stance = torch.compiler.set_stance("force_eager") if is_forward_only else nullcontext()
    with stance, torch.set_grad_enabled(not is_forward_only):
        logps = forward(packed(rows, options)).logps
    return {"forward": logps} if is_forward_only else passes(logps, weights)


def passes(logps: Tensor, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The log-probabilities, and the gradient of a weighted mean of them, in float64."""
    token_weights = torch.linspace(0.5, 1.5, len(logps), device=logps.device, dtype=logps.dtype)
    parameters = [weight for _, weight in sorted(weights.items())]
    gradients = torch.autograd.grad((logps * token_weights).mean(), parameters)
    flat = [gradient.flatten().double() for gradient in gradients]
    return {"forward": logps.detach(), "gradient": torch.cat(flat)}


def layer_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters, without embeddings and head, whose gradients would outweigh all others."""
    parameters = model.named_parameters()
    return {name: weight for name, weight in parameters if ".layers." in name}


def compare(
    trees: Mapping[str, Tensor],
    padded: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    smallest_limit: float,
) -> dict:
    """Errors of trees and of padded rows, each against float64, and whether the former are small enough."""
    errors, yardstick, limits = {}, {}, {}
    for name, values in trees.items():
        errors[name] = relative_error(values, exact[name])
        yardstick[name] = relative_error(padded[name], exact[name])
        limits[name] = max(smallest_limit, YARDSTICKS * yardstick[name])
    ok = all(errors[name] <= limit for name, limit in limits.items())
    return {"ok": ok, "error": errors, "padded_error": yardstick, "limit": limits}


def relative_error(values: Tensor, exact: Tensor) -> float:
    """Norm of the difference, in norms of what is exact; NaN is as wrong as can be."""
    error = (values.double() - exact.double()).norm() / exact.double().norm()
    return float(error.nan_to_num(nan=float("inf")))
