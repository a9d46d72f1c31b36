"""DPO and PPO through ``lit-align fit`` itself; only the weights are random and made on the device."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import yaml

from lit_align.cli.main import main as lit_align
from tests.gpu.options import KitOptions, PhaseRecorder
from tests.gpu.random_weights import random_base_weights
from tests.gpu.shapes import PROMPT_MARKS, SHAPES, random_words, save_without_weights
from tests.gpu.timed_stages import FIGURES

WARMUP_STEPS = 2
PREDICTED_PHASES = {
    "sampling": ("prefill", "decode"),
    "score": ("score",),
    "update": ("update",),
}
"""Measured phases, with the planner's phases of which each is the largest."""


class Workload:
    """How much is trained on.

    Args:
        tiny: a few tokens, or what a user of an 8B model would have.
    """

    def __init__(self, tiny: bool) -> None:
        self.prompt, self.response = (12, 6) if tiny else (512, 256)
        self.pairs = 2 if tiny else 4
        self.steps = 3 if tiny else 10
        self.prompts = 2 if tiny else 8
        self.iterations = 1 if tiny else 2
        self.token_budget = 256 if tiny else 4096


def dpo(
    options: KitOptions,
    shape: str,
    gradient_checkpointing: bool = True,
    attention: str | None = None,
) -> dict:
    """Optimizer steps of DPO."""
    work = Workload(options.tiny)
    model = {
        "objective": {"class_path": "DPO", "init_args": {"beta": 0.1}},
        "gradient_checkpointing": gradient_checkpointing,
    }
    data = {"batch_size": work.pairs}
    run = _fit(options, shape, attention, "TimedPreference", model, "Comparisons", data, work.steps)
    # scoring with the reference comes before the backward pass of the same step
    phases = {**PREDICTED_PHASES, "update": ("score", "update")}
    seconds = run.recorder.median_seconds("update", WARMUP_STEPS)
    return {
        "ok": True,
        "attention": run.attention,
        "gradient_checkpointing": gradient_checkpointing,
        "seconds_per_step": seconds,
        "pairs_per_second": work.pairs / seconds,
        "tree_tokens_per_step": work.pairs * (work.prompt + 2 * work.response),
        **run.memory(phases),
    }


def ppo(options: KitOptions, shape: str) -> dict:
    """Iterations of PPO with a critic on the same base."""
    work = Workload(options.tiny)
    model = {
        "objective": {"class_path": "PPO"},
        "reward": {"class_path": "Length", "init_args": {"max_words": 8}},
        "advantage": {"class_path": "GAE"},
        "kl": {"coefficient": 0.05},
        "critic": {"vf_coef": 0.1},
        "num_generations": 4,
        "num_minibatches": 2,
        "max_new_tokens": work.response,
        "log_samples_every": 0,
    }
    data = {"batch_size": work.prompts}
    run = _fit(options, shape, None, "TimedRL", model, "Prompts", data, work.iterations)
    seconds = {phase: run.recorder.median_seconds(phase) for phase in PREDICTED_PHASES}
    return {
        "ok": True,
        "attention": run.attention,
        "seconds": seconds,
        **run.memory(PREDICTED_PHASES),
    }


class FinishedRun:
    """What a run has measured.

    Args:
        options: with which it ran.
        figures: as the timed stages write them.
    """

    def __init__(self, options: KitOptions, figures: dict) -> None:
        self.recorder = PhaseRecorder(options.device, figures["phases"])
        self.predicted = figures["predicted_bytes"]
        self.attention = figures["attention"]

    def memory(self, phases: dict[str, tuple[str, ...]]) -> dict:
        """Peak of each measured phase, the predicted one, and their largest relative difference."""
        peaks, predicted, errors = {}, {}, []
        for phase in self.recorder.phases:
            peaks[phase] = self.recorder.largest_peak(phase)
            predicted[phase] = max(self.predicted[name] for name in phases[phase])
            if peaks[phase] is not None:
                errors.append(abs(predicted[phase] / peaks[phase] - 1))
        return {
            "peak_bytes": peaks,
            "predicted_bytes": predicted,
            "prediction_error": max(errors, default=None),
        }


def _fit(
    options: KitOptions,
    shape: str,
    attention: str | None,
    stage: str,
    model: dict,
    data_class: str,
    data: dict,
    max_steps: int,
) -> FinishedRun:
    """Run ``lit-align fit`` on random texts; its log goes where that of the section goes."""
    work, shape = Workload(options.tiny), "tiny" if options.tiny else shape
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_without_weights(shape, folder / "base")
        rows = _write_rows(folder / "rows.jsonl", work, SHAPES[shape]["vocab_size"])
        data = {**data, "train": str(rows), "token_budget": work.token_budget, "max_length": 2048}
        settings = {
            "run": str(folder / "runs"),
            "trainer": _trainer_settings(options, max_steps),
            "model": {
                "class_path": f"tests.gpu.timed_stages.{stage}",
                "init_args": {**model, **_model_settings(folder / "base", attention)},
            },
            "data": {"class_path": data_class, "init_args": data},
        }
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
        with random_base_weights():
            lit_align(["fit", "-c", str(folder / "run.yaml")])
        (figures,) = (folder / "runs").rglob(FIGURES)
        return FinishedRun(options, json.loads(figures.read_text()))


def _trainer_settings(options: KitOptions, max_steps: int) -> dict:
    return {
        "accelerator": "cpu" if options.tiny else "gpu",
        "devices": 1,
        "max_steps": max_steps,
        "max_epochs": -1,
        "log_every_n_steps": 1000,
        "enable_progress_bar": False,
        "logger": False,
    }


def _model_settings(base: Path, attention: str | None) -> dict:
    """Settings that all stages share: QLoRA with AdamW."""
    return {
        "base": {
            "path": str(base),
            "quantization": "nf4",
            "dtype": "bfloat16",
            "attention": attention,
        },
        "lora": {"r": 16, "alpha": 32},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-5}},
    }


def _write_rows(path: Path, work: Workload, vocab_size: int) -> Path:
    """Comparisons of random words, as many as the longest run reads."""
    generator = random.Random(0)
    with path.open("w") as file:
        for _ in range(max(work.pairs * work.steps, work.prompts)):
            row = {"prompt": random_words(work.prompt - PROMPT_MARKS, vocab_size, generator)}
            for side in ("chosen", "rejected"):
                row[side] = random_words(work.response - 1, vocab_size, generator)
            file.write(json.dumps(row) + "\n")
    return path
