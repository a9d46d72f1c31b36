"""End-of-run report: metrics before and after training, sample answers, a plot, where the files are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from lit_align.callbacks.held_out import held_out_results, question_text
from lit_align.callbacks.likelihood_displacement import measure_displacement
from lit_align.callbacks.run_output import (
    print_answers,
    print_metrics,
    print_next_steps,
)
from lit_align.errors import ConfigError
from lit_align.jsonl import write_json
from lit_align.models.adapter_files import write_adapter_card
from lit_align.objectives import PairwiseObjective
from lit_align.rl.stage import RL
from lit_align.run_report.curves import plot_curves
from lit_align.run_report.page import CURVES, write_report
from lit_align.run_report.record import METRICS, SAMPLES, read_curves
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference import Preference
from lit_align.stages.reward_model import RewardModel
from lit_align.stages.sharded_base import is_sharded
from lit_align.types import Tree

DISPLACEMENT_GROUPS = 64  # groups over whose pairs displacement is measured


class Report(Callback):
    """Write ``summary.json``, a plot and ``report.html`` into the run folder; with ``questions``, ask before and after.

    Args:
        questions: how many held-out prompts to answer before and after training; 0 turns this off.
        shown: how many of the answers to print side by side.
        max_new_tokens: longest answer.
        length_tolerance: pairs whose lengths differ by at most this share enter ``pair_accuracy``.
        curves: whether to draw them, which takes a second; a sweep of short runs does without.
    """

    read_columns = ("answerable", "keywords")

    def __init__(
        self,
        questions: int = 0,
        shown: int = 3,
        max_new_tokens: int = 64,
        length_tolerance: float = 0.2,
        curves: bool = True,
    ) -> None:
        self.questions, self.shown, self.curves = questions, shown, curves
        self.max_new_tokens, self.length_tolerance = max_new_tokens, length_tolerance
        self.metrics_before: dict[str, Any] = {}
        self.answered_questions: list[str] = []
        self.answers_before: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """Answers of the untrained model, so that a resumed run need not ask again."""
        return {
            "before": self.metrics_before,
            "asked": self.answered_questions,
            "answers": self.answers_before,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.metrics_before = state_dict["before"]
        self.answered_questions = state_dict["asked"]
        self.answers_before = state_dict["answers"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the untrained model, unless a resumed run has its answers.

        Raises:
            ConfigError: if there are questions and the run has no policy.
        """
        self._start_time = time.perf_counter()
        stage = cast(LanguageModelStage, pl_module)
        if self.questions and "policy" not in stage.adapters.names:
            raise ConfigError(
                f"questions is {self.questions}, and {type(stage).__name__} trains no policy that could answer; set it "
                "to 0 in the Report"
            )
        trees = self._held_out_trees(stage)
        if not trees:
            return
        questions = [question_text(tree) for tree in trees]
        if questions != self.answered_questions:
            self.metrics_before, self.answers_before = self._ask(stage, trees, "reference")
            self.answered_questions = questions
        print_metrics({"before": self.metrics_before}, self.questions)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the adapter first, since anything else may fail; then ask again, write and print the report."""
        stage = cast(LanguageModelStage, pl_module)
        folder = Path(trainer.default_root_dir)
        rank_zero_only(stage.save_adapter)(folder / "adapter")
        report: dict[str, Any] = {}
        trees = self._held_out_trees(stage)
        if trees:
            metrics, answers = self._ask(stage, trees, "policy")
            report["before"], report["after"] = self.metrics_before, metrics
            report["answers"] = [
                {"question": question_text(tree), "before": before, "after": after}
                for tree, before, after in zip(trees, self.answers_before, answers, strict=True)
            ]
        displacement = _displacement_record(stage)
        if displacement is not None:
            report["displacement"] = displacement
        self._write(trainer, stage, folder, report)
        if trees:
            columns = {"before": report["before"], "after": report["after"]}
            print_metrics(columns, self.questions)
            print_answers(report["answers"], self.shown)
        if displacement is not None:
            rank_zero_info(f"\n{displacement['story']}")
        has_tensorboard = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        evaluation = stage.evaluation(folder) if isinstance(stage, RewardModel) else ""
        files = _drawn_files(stage, folder)
        print_next_steps(folder, stage.reward_name, files, has_tensorboard, evaluation)

    def _held_out_trees(self, stage: LanguageModelStage) -> list[Tree]:
        if not self.questions or is_sharded(stage.trainer):
            return []
        trees: list[Tree] = stage.datamodule.trees.get("validation", [])
        return trees[: self.questions]

    def _ask(
        self, stage: LanguageModelStage, trees: list[Tree], role: str
    ) -> tuple[dict[str, Any], list[str]]:
        return held_out_results(stage, trees, role, self.max_new_tokens, self.length_tolerance)

    @rank_zero_only
    def _write(
        self, trainer: Trainer, stage: LanguageModelStage, folder: Path, report: dict[str, Any]
    ) -> None:
        metrics = sorted(trainer.callback_metrics.items())
        summary = {
            "objective": repr(stage.objective),
            "base": stage.base.path,
            "adapter": str(folder / "adapter"),
            "steps": trainer.global_step,
            "seconds": round(time.perf_counter() - self._start_time, 1),
            "skipped_steps": stage.skipped,
            "metrics": {name: float(value) for name, value in metrics},
            **report,
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "summary.json", summary, ascii_only=True)
        write_adapter_card(folder / "adapter", summary)
        try:
            if self.curves:
                plot_curves(read_curves(folder / METRICS), folder / CURVES)
        except Exception as error:
            rank_zero_warn(f"{CURVES} could not be drawn: {error!r}")
        try:  # the run itself is complete, whatever becomes of its page
            write_report(folder, curves=self.curves)
        except Exception as error:
            rank_zero_warn(f"report.html could not be written: {error!r}")


def _displacement_record(stage: LanguageModelStage) -> dict[str, float | str] | None:
    """Displacement on the validation pairs, or else on the training pairs; None without pairs."""
    if not isinstance(stage, Preference) or not isinstance(stage.objective, PairwiseObjective):
        return None
    trees = stage.datamodule.trees
    groups = (trees.get("validation") or trees["train"])[:DISPLACEMENT_GROUPS]
    displacement = measure_displacement(stage, groups)
    return None if displacement is None else displacement.record(stage.objective)


def _drawn_files(stage: LanguageModelStage, folder: Path) -> list[str]:
    """Files beside those of every run, as far as there is something to draw or write."""
    names = [name for name in (CURVES, SAMPLES) if (folder / name).exists()]
    if isinstance(stage, RL) and stage.diagnostics.has_curve:
        names.append("reward_kl.png")  # drawn when all callbacks are done
    return names
