"""TRL's own DPOTrainer on the same random weights, lengths and settings."""

from __future__ import annotations

import random

from transformers import TrainerCallback

from tests.benchmarks import trl_side
from tests.gpu.options import KitOptions, PhaseRecorder
from tests.gpu.random_weights import random_model
from tests.gpu.shapes import SHAPES, llama_config, random_ids
from tests.gpu.training import WARMUP_STEPS, Workload


class StepClock(TrainerCallback):
    """Measures optimizer steps, the optimizer included.

    Args:
        recorder: of the run.
    """

    def __init__(self, recorder: PhaseRecorder) -> None:
        self.recorder = recorder

    def on_step_begin(self, *_, **__) -> None:
        self.recorder.begin("update")

    def on_step_end(self, *_, **__) -> None:
        self.recorder.end("update")


def dpo(options: KitOptions, shape: str, gradient_checkpointing: bool = True) -> dict:
    """Optimizer steps of DPO in TRL."""
    work, shape = Workload(options.tiny), "tiny" if options.tiny else shape
    generator, vocab_size = random.Random(0), SHAPES[shape]["vocab_size"]
    rows = []
    for _ in range(work.pairs * work.steps):
        row = {"prompt_ids": random_ids(work.prompt, vocab_size, generator)}
        for side in ("chosen_ids", "rejected_ids"):
            row[side] = random_ids(work.response, vocab_size, generator)
        rows.append(row)
    job = {
        "device": options.device.type,
        "dtype": "bfloat16",
        "pairs": work.pairs,
        "lr": 1e-5,
        "max_grad_norm": 1.0,
        "beta": 0.1,
        "reference": "each",
        "checkpointing": gradient_checkpointing,
        "adapter": {},
    }
    model = random_model(llama_config(shape), options.device)
    trainer = trl_side.trainer(model, job, rows)
    recorder = PhaseRecorder(options.device)
    trainer.add_callback(StepClock(recorder))
    trainer.train()
    seconds = recorder.median_seconds("update", WARMUP_STEPS)
    return {
        "ok": True,
        "gradient_checkpointing": gradient_checkpointing,
        "seconds_per_step": seconds,
        "pairs_per_second": work.pairs / seconds,
        "padded_tokens_per_step": work.pairs * 2 * (work.prompt + work.response),
        "peak_bytes": {"update": recorder.largest_peak("update")},
    }
