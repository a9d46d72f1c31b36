"""How often FlexAttention is compiled over micro-batches of changing length, policy and reference in turn."""

from __future__ import annotations

import logging
import random
import time
import warnings
from typing import Any

import torch
from torch._dynamo.utils import counters
from transformers import LlamaConfig, LlamaForCausalLM

from lit_align.models.tree_forward import TreeForward
from tests.gpu.gates import packed, tree
from tests.gpu.options import KitOptions, synchronize
from tests.gpu.shapes import random_ids

LENGTHS = (384, 1024, 640, 128, 896, 1280, 256, 768, 1152, 512)


class LogLines(logging.Handler):
    """Keeps the lines of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage()[:200])


def recompiles(options: KitOptions) -> dict:
    """Passes over rows of each length, with gradient and without, and the graphs that were compiled by then.

    Not ok if torch stops compiling, or computes without the fused kernel: both are warnings that nobody reads.
    """
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=512,
    )
    model: Any = LlamaForCausalLM(config).to(options.device, torch.bfloat16)
    model.set_attn_implementation("flex_attention")
    forward, generator = TreeForward(model), random.Random(options.seed)
    log = LogLines()
    logging.getLogger("torch._dynamo.convert_frame").addHandler(log)
    passes = []
    # A CPU has no backward pass of FlexAttention, and no C++ that torch 2.13 writes for it once lengths have changed
    # compiles. What is counted, the traced graphs, does not depend on what becomes of them.
    modes = (False,) if options.tiny else (True, False)
    backend = "eager" if options.tiny else None
    with (
        warnings.catch_warnings(record=True) as caught,
        torch.compiler.set_stance("default", force_backend=backend),
    ):
        warnings.simplefilter("always")
        for length in LENGTHS:
            for training in modes:
                seconds = run_pass(forward, length, training, generator, options)
                graphs = counters["stats"]["unique_graphs"]
                passes.append(
                    {"length": length, "training": training, "seconds": seconds, "graphs": graphs}
                )
    unfused = [str(entry.message) for entry in caught if "without torch.compile" in str(entry)]
    limits = [line for line in log.lines if "limit" in line]
    return {
        "ok": not limits and not unfused,
        "graphs": counters["stats"]["unique_graphs"],
        "limits": sorted(set(limits)),
        "unfused": len(unfused),
        "passes": passes,
    }


def run_pass(
    forward: TreeForward,
    length: int,
    training: bool,
    generator: random.Random,
    options: KitOptions,
) -> float:
    """Seconds of one pass over a row of so many tokens, half of them the prompt."""
    quarter = length // 4
    prompt = random_ids(length - 2 * quarter, 512, generator)
    responses = [random_ids(quarter, 512, generator) for _ in range(2)]
    trees = packed([[tree(prompt, responses)]], options)
    forward.model.train(training)
    synchronize(options.device)
    start = time.perf_counter()
    with torch.set_grad_enabled(training):
        logps = forward(trees).logps
    if training:
        logps.sum().backward()
    synchronize(options.device)
    return time.perf_counter() - start
