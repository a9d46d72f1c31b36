"""Answers to a few prompts, or scores of their responses, while a model trains, which changes nothing it learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lit_align.checkpoint_files import run_of_checkpoint
from lit_align.checks import check_at_least
from lit_align.errors import ConfigError, TrainingError
from lit_align.jsonl import append_jsonl, read_jsonl_so_far
from lit_align.models.load import load_config
from lit_align.models.out_of_memory import raise_out_of_memory
from lit_align.rewards.base import response_text
from lit_align.run_report.page import write_report
from lit_align.run_report.record import SUMMARY
from lit_align.run_report.sampled import (
    SAMPLE_ANSWERS,
    SAMPLE_SCORES,
    last_message,
    scored_responses,
)
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.reward_model import RewardModel, unbeaten_responses
from lit_align.stages.sharded_base import is_sharded
from lit_align.types import Tree

MAX_CELL_LENGTH = 300  # characters


@dataclass(frozen=True)
class Samples:
    """Show what the model says to a few prompts while it trains, which changes nothing of what it learns.

    The prompts are spread over the validation data, or over the training data where there are none. A reward model
    scores their responses instead, normalized from the end of the first epoch on. All samples are in
    ``sample_answers.jsonl`` or ``sample_scores.jsonl`` in the run folder, the first and the last in ``report.html``.

    Args:
        every: optimizer steps between two samples; they are also taken before the first step and after the last.
        prompts: number of prompts.
        max_new_tokens: longest answer.
        temperature: of sampling, with the same seed each time; 0 is greedy.

    Raises:
        ConfigError: if a setting is out of its range.
    """

    every: int = 50
    prompts: int = 4
    max_new_tokens: int = 64
    temperature: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("samples.every", self.every, 1)
        check_at_least("samples.prompts", self.prompts, 1)
        check_at_least("samples.max_new_tokens", self.max_new_tokens, 1)
        check_at_least("samples.temperature", self.temperature, 0)


class SampleLog(Callback):
    """Take, print and write the samples of a run.

    Samples are taken between two steps, when the step before has been logged: a signal then ends the run in a state
    from which it resumes. One process takes them, and the others wait for it in their next step.

    Args:
        settings: how often, and of how many prompts.
    """

    def __init__(self, settings: Samples) -> None:
        self.settings = settings
        self.trees: list[Tree] = []
        self.split = "validation"
        self._last_step: int | None = None  # of which there are samples
        self._is_due = False
        self._has_failed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the prompts before the model is loaded.

        Raises:
            ConfigError: if the stage gives neither answers nor scores, or no prompt can be used.
        """
        if stage != "fit":
            return
        if is_sharded(trainer):
            raise ConfigError(
                "samples is set, and trainer.strategy is sharded_base, by which no process has a whole model to sample "
                "from; remove samples, and ask the saved adapter with `lit-align predict`"
            )
        name = type(pl_module).__name__
        if not isinstance(pl_module, LanguageModelStage):
            raise ConfigError(f"samples is set, and {name} neither answers nor scores; remove it")
        splits = pl_module.datamodule.trees
        self.split = "validation" if splits.get("validation") else "train"
        is_scored = isinstance(pl_module, RewardModel)
        room = math.inf if is_scored else self._room_for_prompt(pl_module)
        trees = splits[self.split]
        self.trees = choose_prompts(trees, self.settings.prompts, room, needs_responses=is_scored)
        if not self.trees and is_scored:
            raise ConfigError(
                f"samples is set, and no row of data.{self.split} has responses to score before training; name "
                "data.validation, or remove samples"
            )
        if not self.trees:
            raise ConfigError(
                f"samples.max_new_tokens is {self.settings.max_new_tokens}, and no prompt of data.{self.split} leaves "
                "so many positions of the model; lower it"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the samples of the run that is resumed, and sample before the first step."""
        if trainer.ckpt_path:
            self._copy_history(trainer, run_of_checkpoint(Path(trainer.ckpt_path)))
        if trainer.global_step % self.settings.every == 0:
            self._take(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Note that samples are due; the step has not been logged yet."""
        self._is_due = trainer.global_step % self.settings.every == 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any
    ) -> None:
        """Sample before the next step."""
        if self._is_due:
            self._take(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample from the model as it is at the end, when all else is saved, and write the page again to show it."""
        try:
            self._take(trainer, pl_module)
            if trainer.is_global_zero and (Path(trainer.default_root_dir) / SUMMARY).is_file():
                write_report(Path(trainer.default_root_dir))
        except Exception as error:  # the run itself is complete, whatever becomes of its samples
            rank_zero_warn(f"the last samples are not on the page of the run: {error}")

    def _room_for_prompt(self, stage: LanguageModelStage) -> float:
        """The longest prompt to which there is room for an answer, in tokens."""
        config = load_config(stage.base).get_text_config()
        positions = getattr(config, "max_position_embeddings", None) or math.inf
        return positions - self.settings.max_new_tokens

    def _take(self, trainer: Trainer, stage: Any) -> None:
        """Sample, unless there are samples of this step; a step that was skipped does not count."""
        self._is_due = False
        step = trainer.global_step
        if step == self._last_step or self._has_failed or not trainer.is_global_zero:
            return
        is_first, self._last_step = self._last_step is None, step
        try:
            self._write(trainer, stage)
        except TrainingError as error:
            if is_first:
                raise
            self._has_failed = True
            rank_zero_warn(f"{error}; the run goes on without samples")

    def _write(self, trainer: Trainer, stage: Any) -> None:
        """Write and print samples of this step.

        Raises:
            TrainingError: if the memory is too small.
        """
        step = trainer.global_step
        devices = [stage.device] if stage.device.type == "cuda" else []
        advice = "out of memory while samples were taken; lower samples.prompts or max_new_tokens"
        with torch.random.fork_rng(devices), raise_out_of_memory(lambda: advice):
            rows = self._rows(stage)
        rows = [{"step": step, "split": self.split, **row} for row in rows]
        file = Path(trainer.default_root_dir) / _file_name(stage)
        file.parent.mkdir(parents=True, exist_ok=True)
        append_jsonl(file, rows)
        split = "validation" if self.split == "validation" else "training"
        print_samples(rows, f"samples of step {step}, {split} prompts")

    def _rows(self, stage: Any) -> list[dict[str, Any]]:
        """What the model says now, a row for each prompt."""
        if isinstance(stage, RewardModel):
            records = stage.predict_step(list(enumerate(self.trees)), 0)
            return [_score_row(*pair) for pair in zip(self.trees, records, strict=True)]
        answers = stage.responder.sample(
            [tree.prompt for tree in self.trees],
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
        )
        return [_answer_row(*pair) for pair in zip(self.trees, answers, strict=True)]

    def _copy_history(self, trainer: Trainer, folder: Path) -> None:
        """Begin with the samples of the run before, up to this step."""
        file = folder / _file_name(trainer.lightning_module)
        if not trainer.is_global_zero or not file.is_file():
            return
        rows = [row for row in read_jsonl_so_far(file) if row["step"] <= trainer.global_step]
        append_jsonl(Path(trainer.default_root_dir) / file.name, rows)
        self._last_step = max((row["step"] for row in rows), default=None)


def choose_prompts(
    trees: Sequence[Tree], count: int, room: float, needs_responses: bool = False
) -> list[Tree]:
    """At most ``count`` rows with different prompts, spread over the data.

    Args:
        trees: the rows.
        count: number of prompts.
        room: tokens of the longest prompt that can be used.
        needs_responses: whether a row must have responses.
    """
    chosen: list[Tree] = []
    stride = max(1, len(trees) // count)
    for start in range(0, stride * count, stride):
        for index in range(start, min(start + stride, len(trees))):
            tree = trees[index]
            is_fitting = len(tree.prompt) <= room and (tree.responses or not needs_responses)
            if is_fitting and all(tree.prompt != other.prompt for other in chosen):
                chosen.append(tree)
                break
    return chosen


def print_samples(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Print a table, above the progress bar if there is one."""
    from rich import get_console
    from rich.table import Table
    from rich.text import Text

    is_scored = "scores" in rows[0]
    columns = ("prompt", "response", "score") if is_scored else ("prompt", "answer")
    table = Table(*columns, title=title, title_justify="left", show_lines=True)
    for row in rows:
        prompt = Text(
            last_message(row["prompt"])[-MAX_CELL_LENGTH:]
        )  # as Text, brackets are not markup
        if not is_scored:
            table.add_row(prompt, Text(row["response"][:MAX_CELL_LENGTH]))
            continue
        for text, score, is_preferred in scored_responses(row):
            label = " preferred" if is_preferred else ""
            table.add_row(prompt, Text(text[:MAX_CELL_LENGTH]), f"{score:.2f}{label}")
            prompt = Text()
    get_console().print(table)  # that of the progress bar, so that it stays below


def _file_name(stage: Any) -> str:
    return SAMPLE_SCORES if isinstance(stage, RewardModel) else SAMPLE_ANSWERS


def _answer_row(tree: Tree, answers: Sequence[Any]) -> dict[str, Any]:
    (answer,) = answers
    return {**_source(tree), "response": answer.text.strip(), "ended": answer.ended}


def _score_row(tree: Tree, record: dict[str, Any]) -> dict[str, Any]:
    return {
        **_source(tree),
        "responses": [response_text(response) for response in record["responses"]],
        "scores": record["scores"],
        "preferred": unbeaten_responses(tree),
    }


def _source(tree: Tree) -> dict[str, Any]:
    return {"source": tree.group.source, "prompt": tree.group.prompt}
