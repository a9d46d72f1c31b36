"""What a run prints and draws at its end: tables, next commands, curves of the logged metrics."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from lit_align.plotting import saved_subplots

MARGINS = ("rewards/margins", "rewards/accuracies")
REWARD_AND_KL = ("objective/scores", "objective/kl")
LEARNING_RATE = "lr"
CURVES = (("", "training", "-"), ("eval_", "validation", "o--"))  # prefix, label, style


@rank_zero_only
def print_metrics(columns: Mapping[str, Mapping[str, Any]], num_prompts: int) -> None:
    """Print a table of held-out metrics, one column for each state of the model."""
    from rich.console import Console
    from rich.table import Table

    title = f"{num_prompts} prompts that are not trained on"
    table = Table("held-out metric", *columns, title=title)
    for name in next(iter(columns.values())):
        table.add_row(name, *(_format_value(column[name]) for column in columns.values()))
    Console().print(table)


@rank_zero_only
def print_answers(rows: Sequence[Mapping[str, str]], limit: int) -> None:
    """Print at most ``limit`` answers before and after training side by side, evenly spaced among all."""
    from rich.console import Console
    from rich.table import Table

    title = "answers to held-out questions"
    table = Table("question", "before", "after", title=title, show_lines=True)
    step = max(1, len(rows) // max(limit, 1))
    for row in rows[::step][:limit]:
        table.add_row(row["question"], row["before"], row["after"])
    Console().print(table)


@rank_zero_only
def print_next_steps(
    folder: Path, has_policy: bool, files: Sequence[str], has_tensorboard: bool
) -> None:
    """Print where the results are, and the commands that use them.

    Args:
        folder: the run folder.
        has_policy: whether the run trained a policy rather than a reward model.
        files: names of the stage's own files.
        has_tensorboard: whether TensorBoard's logs are in the folder.
    """
    adapter = f"{folder}/adapter"
    if has_policy:
        command = f"lit-align chat {folder} --base"
        usage = f"a stage that starts from it has model.init_adapter: {adapter}"
    else:
        command = f"lit-align evaluate reward-bench --reward RewardModelScore --reward.path {adapter} --data FILE"
        usage = f"RL that is rewarded by it has model.reward: RewardModelScore, path: {adapter}"
    names = ", ".join(["report.html", *files, "summary.json", "metrics.csv", "ledger.json"])
    dashboard = f"\n      tensorboard --logdir {folder}" if has_tensorboard else ""
    print(
        f"\nThe adapter is {adapter}, in PEFT's layout; {usage}.\n"
        f"In {folder} are also {names} and margins.png.\n"
        f"Next: {command}{dashboard}"
    )


def plot_margins(metrics: Path, path: Path) -> None:
    """Draw from ``metrics.csv`` margin and accuracy, or rewards and KL, or else the loss; and the learning rate."""
    with metrics.open() as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []
    names = _curve_names(columns)
    if LEARNING_RATE in columns:
        names = (*names, LEARNING_RATE)
    size = (5 * len(names), 3.5)
    with saved_subplots(path, 1, len(names), figsize=size, squeeze=False) as (_, axes):
        for axis, name in zip(axes[0], names, strict=True):
            for prefix, label, style in CURVES:
                column = prefix + name
                logged = [row for row in rows if row.get(column)]
                if logged:
                    steps = [int(row["step"]) for row in logged]
                    axis.plot(steps, [float(row[column]) for row in logged], style, label=label)
            axis.set(title=name, xlabel="step")
            axis.grid(alpha=0.3)
            axis.legend()


def _curve_names(columns: Sequence[str]) -> tuple[str, ...]:
    if MARGINS[0] in columns:
        return MARGINS
    if REWARD_AND_KL[0] in columns:
        # Parts of a reward are named after classes; one of weight 0 shows whether the others are exploited.
        parts = [name for name in columns if re.match("rewards/[A-Z]", name)]
        return (*REWARD_AND_KL, *parts)
    return ("loss",)


def _format_value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
