"""What a run prints at its end: tables and next commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only


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
    folder: Path, reward: str, files: Sequence[str], has_tensorboard: bool, evaluation: str = ""
) -> None:
    """Print where the results are, and the commands that use them.

    Args:
        folder: the run folder.
        reward: name of the reward that a reward model becomes; empty if the run trained a policy.
        files: names of the stage's own files.
        has_tensorboard: whether TensorBoard's logs are in the folder.
        evaluation: of a reward model, the words after ``lit-align evaluate`` that name it.
    """
    adapter = f"{folder}/adapter"
    if not reward:
        command = f"lit-align chat {folder} --base"
        usage = f"a stage that starts from it has model.init_adapter: {adapter}"
    else:
        command = f"lit-align evaluate {evaluation} --data FILE"
        usage = f"RL that is rewarded by it has model.reward: {reward}, path: {adapter}"
    *names, last = ["report.html", *files, "summary.json", "metrics.csv", "ledger.json"]
    dashboard = f"\n      tensorboard --logdir {folder}" if has_tensorboard else ""
    print(
        f"\nThe adapter is {adapter}, in PEFT's layout; {usage}.\n"
        f"In {folder} are also {', '.join(names)} and {last}.\n"
        f"Next: {command}{dashboard}"
    )


def _format_value(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
