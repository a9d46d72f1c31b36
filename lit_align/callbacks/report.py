"""What a run has to show for itself: figures before and after, answers side by side, a plot, where everything lies."""

from __future__ import annotations

import csv
import json
import re
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from lit_align.callbacks.likelihood_displacement import Displacement, displacement
from lit_align.data.datamodules import to_device
from lit_align.data.packing import pack
from lit_align.errors import ConfigError
from lit_align.functional.logps import sum_by_response
from lit_align.functional.text_metrics import (
    abstains,
    contains_keywords,
    distinct_share,
    is_short,
    true_share,
)
from lit_align.objectives import PairwiseObjective
from lit_align.rl.stage import RL
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference import Preference
from lit_align.types import Tree

PAIRS = 64  # groups of which displacement is measured
TOGETHER = 10  # questions that are asked at once


class Report(Callback):
    """Write ``summary.json`` and a plot into the run folder; with ``questions``, ask the model before and after.

    Args:
        questions: how many held-out prompts to answer before and after training; 0 asks none.
        shown: how many of the answers to print side by side.
        max_new_tokens: longest answer.
        length_tolerance: pairs whose lengths differ by at most this share enter ``pair_accuracy``.
    """

    def __init__(
        self,
        questions: int = 0,
        shown: int = 3,
        max_new_tokens: int = 64,
        length_tolerance: float = 0.2,
    ) -> None:
        self.questions, self.shown, self.max_new_tokens, self.length_tolerance = (
            questions,
            shown,
            max_new_tokens,
            length_tolerance,
        )
        self.before: dict[str, Any] = {}
        self.asked: list[str] = []
        self.answers: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """What was asked before training, so that a resumed run need not ask again."""
        return {"before": self.before, "asked": self.asked, "answers": self.answers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.before, self.asked, self.answers = (
            state_dict[name] for name in ("before", "asked", "answers")
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the untrained model, unless the run that goes on here did."""
        self._began = time.perf_counter()
        if self.questions and "policy" not in pl_module.adapters.names:  # type: ignore[union-attr, operator]
            raise ConfigError(
                f"questions is {self.questions}, and {type(pl_module).__name__} trains nobody who could answer; set it "
                "to 0 in the Report"
            )
        trees = self._held_out(trainer)
        questions = [_question(tree) for tree in trees]
        if trees and questions != self.asked:
            self.before, self.answers = self._ask(pl_module, trees, "reference")  # type: ignore[arg-type]
            self.asked = questions
        if trees:
            self._print_figures({"before": self.before})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask again, and write it all down; the adapter first, since anything else may fail."""
        folder = Path(trainer.default_root_dir)
        rank_zero_only(pl_module.save_adapter)(folder / "adapter")  # type: ignore[arg-type]
        trees = self._held_out(trainer)
        after, answers = self._ask(pl_module, trees, "policy") if trees else ({}, [])  # type: ignore[arg-type]
        told = [
            {"question": _question(tree), "before": before, "after": now}
            for tree, before, now in zip(trees, self.answers, answers, strict=True)
        ]
        held_out: dict[str, Any] = (
            {"before": self.before, "after": after, "answers": told} if trees else {}
        )
        moved = self._moved(trainer, pl_module)  # type: ignore[arg-type]
        if moved is not None:
            held_out["displacement"] = {
                **moved._asdict(),
                "story": moved.story(pl_module.objective),
            }  # type: ignore[arg-type]
        self._write(trainer, pl_module, folder, held_out)  # type: ignore[arg-type]
        if trees:
            self._print_figures({"before": self.before, "after": after})
            self._print_answers(told)
        if moved is not None:
            rank_zero_info("\n" + moved.story(pl_module.objective))  # type: ignore[arg-type]
        self._print_end(folder, pl_module)  # type: ignore[arg-type]

    def _moved(self, trainer: Trainer, module: LanguageModelStage) -> Displacement | None:
        """What became of chosen and rejected responses: of the held-out pairs if there are any."""
        if not isinstance(module, Preference) or not isinstance(
            module.objective, PairwiseObjective
        ):
            return None
        known = trainer.datamodule.trees  # type: ignore[attr-defined]
        return displacement(module, (known.get("validation") or known["train"])[:PAIRS])

    def _held_out(self, trainer: Trainer) -> list[Tree]:
        if not self.questions:
            return []
        return trainer.datamodule.trees.get("validation", [])[: self.questions]  # type: ignore[attr-defined, no-any-return]

    @torch.no_grad()
    def _ask(
        self, module: LanguageModelStage, trees: list[Tree], role: str
    ) -> tuple[dict[str, Any], list[str]]:
        """Figures and answers of one role."""
        answers: list[str] = []
        _say(f"asking {len(trees)} questions ...")
        for start in range(0, len(trees), TOGETHER):
            prompts = [tree.prompt for tree in trees[start : start + TOGETHER]]
            answers += module.answer(prompts, role, self.max_new_tokens)
            _say(f"  {len(answers)} of {len(trees)}")
        known = [bool(tree.group.extra.get("answerable", True)) for tree in trees]
        keywords = [tree.group.extra.get("keywords", []) for tree in trees]
        right, pairs = self._pairs(module, trees, role)
        return {
            "pair_accuracy": true_share(right),
            "pairs": pairs,
            "short_answers": true_share([is_short(answer) for answer in answers]),
            "distinct_answers": distinct_share(answers),
            "keyword_hits": true_share(
                [
                    contains_keywords(a, w)
                    for a, w, k in zip(answers, keywords, known, strict=True)
                    if k and w
                ]
            ),
            "abstains_when_unanswerable": true_share(
                [abstains(a) for a, k in zip(answers, known, strict=True) if not k]
            ),
            "abstains_when_answerable": true_share(
                [abstains(a) for a, k in zip(answers, known, strict=True) if k]
            ),
        }, answers

    def _pairs(
        self, module: LanguageModelStage, trees: list[Tree], role: str
    ) -> tuple[list[bool], int]:
        """For each pair of like length: does the role find the chosen response likelier, per token?"""
        right = []
        for batch in pack(trees, budget=max(2048, *(tree.tokens for tree in trees)), dense=True):
            batch = to_device(batch, module.device)
            if (pairs := batch.pairs) is None:
                continue
            with module.adapters.activate(role, training=False):
                logps = module.tree_forward(batch.trees).logps
            length = torch.bincount(batch.trees.owner, minlength=batch.trees.responses)
            mean = sum_by_response(logps, batch.trees.owner, batch.trees.responses) / length
            a, b = length[pairs.chosen], length[pairs.rejected]
            alike = (a - b).abs() <= self.length_tolerance * torch.maximum(a, b)
            right += (mean[pairs.chosen] > mean[pairs.rejected])[alike].tolist()
        return right, len(right)

    @rank_zero_only
    def _write(
        self, trainer: Trainer, module: LanguageModelStage, folder: Path, held_out: dict[str, Any]
    ) -> None:
        summary = {
            "objective": repr(module.objective),
            "base": module.base.path,
            "adapter": str(folder / "adapter"),
            "steps": trainer.global_step,
            "seconds": round(time.perf_counter() - self._began, 1),
            "skipped_steps": module.skipped,
            "metrics": {
                name: float(value) for name, value in sorted(trainer.callback_metrics.items())
            },
            **held_out,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        if (folder / "metrics.csv").exists():
            try:
                plot_margins(folder / "metrics.csv", folder / "margins.png")
            except Exception as error:
                rank_zero_warn(f"margins.png could not be drawn: {error!r}")

    @rank_zero_only
    def _print_figures(self, columns: dict[str, dict[str, Any]]) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(
            "held-out figure",
            *columns,
            title=f"{self.questions} prompts the model is not trained on",
        )
        for name in next(iter(columns.values())):
            table.add_row(name, *(_number(figures[name]) for figures in columns.values()))
        Console().print(table)

    @rank_zero_only
    def _print_answers(self, told: list[dict[str, str]]) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(
            "question", "before", "after", title="answers to held-out questions", show_lines=True
        )
        for row in told[:: max(1, len(told) // max(self.shown, 1))][: self.shown]:
            table.add_row(row["question"], row["before"], row["after"])
        Console().print(table)

    @rank_zero_only
    def _print_end(self, folder: Path, module: LanguageModelStage) -> None:
        adapter = f"{folder}/adapter"
        if "policy" in module.adapters.names:
            after = f"lit-align chat --run {folder}"
            start = f"a stage that starts from it has model.init_adapter: {adapter}"
        else:
            after = f"lit-align evaluate reward-bench --reward RewardModelScore --reward.path {adapter} --data FILE"
            start = (
                f"RL that is rewarded by it has model.reward: RewardModelScore, folder: {adapter}"
            )
        more = ""
        if isinstance(module, RL):  # the picture is drawn when this has been said
            more = (
                "reward_kl.png, samples.jsonl, " if module.log_samples_every else "reward_kl.png, "
            )
        print(
            f"\nThe adapter is {adapter}, in PEFT's layout; {start}.\n"
            f"In {folder} are also {more}summary.json, metrics.csv, ledger.json and margins.png.\n"
            f"Next: {after}\n"
            f"      tensorboard --logdir {folder}"
        )


@rank_zero_only
def _say(text: str) -> None:
    print(text, flush=True)


def _question(tree: Tree) -> str:
    prompt = tree.group.prompt
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def plot_margins(metrics: Path, picture: Path) -> None:
    """Draw from ``metrics.csv`` margin and accuracy, or rewards and what they cost in KL, or else the loss."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with metrics.open() as file:
        rows = list(csv.DictReader(file))
    # parts of a reward are called after classes; one of weight 0 shows whether the rest is being exploited
    parts = [name for name in rows[0] if re.match("rewards/[A-Z]", name)] if rows else []
    known = [
        ("rewards/margins", "rewards/accuracies"),
        ("objective/scores", "objective/kl", *parts),
    ]
    names = next((pair for pair in known if rows and pair[0] in rows[0]), ("loss",))
    figure, axes = plt.subplots(
        1, len(names), figsize=(5 * len(names), 3.5), layout="constrained", squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        for prefix, label, style in (("", "training", "-"), ("eval_", "validation", "o--")):
            points = [
                (int(row["step"]), float(row[prefix + name]))
                for row in rows
                if row.get(prefix + name)
            ]
            if points:
                axis.plot(*zip(*points, strict=True), style, label=label)
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(picture, dpi=120)
    plt.close(figure)
