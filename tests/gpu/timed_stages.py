"""The stages with a clock: time and peak memory of each phase, beside the memory that the planner predicts."""

from __future__ import annotations

import json
from typing import Any

import torch

from lit_align.cli.memory_report import plan_memory
from lit_align.memory.planner import MemoryPlanner
from lit_align.models.load import load_config
from lit_align.rl.experience import ExperienceBuilder
from lit_align.rl.rollouts import RolloutBatch
from lit_align.rl.stage import RL
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference import Preference
from lit_align.types import Step, Tree
from tests.gpu.options import PhaseRecorder

FIGURES = "phases.json"
"""File in the run folder: attention, seconds and peaks of each phase, and predicted bytes by the planner's names."""


class Timed(LanguageModelStage):
    """Writes the figures of its phases into the run folder."""

    recorder: PhaseRecorder

    def on_fit_start(self) -> None:
        self.recorder = PhaseRecorder(self.device)
        super().on_fit_start()

    def on_train_end(self) -> None:
        super().on_train_end()
        figures = {
            "attention": self.adapters.model.config._attn_implementation,
            "phases": self.recorder.phases,
            "predicted_bytes": self.predicted_bytes(),
        }
        (self.run_folder / FIGURES).write_text(json.dumps(figures))

    def predicted_bytes(self) -> dict[str, int]:
        """The peak of each phase as ``lit-align inspect`` predicts it for a GPU."""
        plan = plan_memory(self, self.datamodule, self.datamodule.trees["train"])
        phases = MemoryPlanner(load_config(self.base), torch.device("cuda")).phases(plan)
        return {phase: memory.total for phase, memory in phases.items()}


class TimedPreference(Timed, Preference):
    """DPO; a phase is an optimizer step, the optimizer included."""

    def training_step(self, step: Step, batch_idx: int) -> None:
        with self.recorder.measure("update"):
            super().training_step(step, batch_idx)


class TimedExperience(ExperienceBuilder):
    """Measures sampling, and scoring: whatever is between sampling and the advantages."""

    recorder: PhaseRecorder

    def sample(self, prompts: list[Tree], number: int) -> RolloutBatch:
        with self.recorder.measure("sampling"):
            rollouts = super().sample(prompts, number)
        self.recorder.begin("score")
        return rollouts

    def add_advantages(self, *inputs: Any) -> float:
        self.recorder.end("score")
        return super().add_advantages(*inputs)


class TimedRL(Timed, RL):
    """PPO; a phase is the sampling, the scoring or one update of an iteration."""

    def experience_builder(self) -> ExperienceBuilder:
        builder = TimedExperience(**vars(super().experience_builder()))
        object.__setattr__(builder, "recorder", self.recorder)  # it is frozen
        return builder

    def update(self, step: Step, statistics: bool) -> Any:
        with self.recorder.measure("update"):
            return super().update(step, statistics)
