"""Log of sampled responses: ``samples.jsonl`` and a table on the screen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lit_align.jsonl import append_jsonl
from lit_align.rewards.base import response_text
from lit_align.rl.rollouts import RolloutBatch
from lit_align.run_report.sampled import last_message

TABLE_ROWS = 3
MAX_CELL_LENGTH = 300  # characters


def log_samples(rollouts: RolloutBatch, step: int, folder: Path) -> None:
    """Append every sample of an iteration to ``samples.jsonl`` in ``folder``, and print a few."""
    response_kl = rollouts.kl["k1"].sum(1)
    rows: list[dict[str, Any]] = []
    for group in rollouts.groups:
        for response in group.responses:
            index = len(rows)
            row = {
                "step": step,
                "source": group.source,
                "prompt": group.prompt,
                "response": response_text(response),
                "score": rollouts.score_totals[index].item(),
            }
            for name, part in rollouts.scores.parts.items():
                value = part[index].item()
                row[f"rewards/{name}"] = None if math.isnan(value) else value
            row["kl"] = response_kl[index].item()
            row["tokens"] = int(rollouts.length[index])
            row["ended"] = bool(rollouts.ended[index])
            reason = rollouts.selected.reason(index)
            if reason:
                row["left_out"] = reason
            rows.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    append_jsonl(folder / "samples.jsonl", rows)
    _print_table(rows, step)


def _print_table(rows: list[dict[str, Any]], step: int) -> None:
    from rich import get_console
    from rich.table import Table
    from rich.text import Text

    title = f"samples of step {step}"
    table = Table("prompt", "response", "score", "KL", title=title, show_lines=True)
    stride = max(1, len(rows) // TABLE_ROWS)
    for row in rows[::stride][:TABLE_ROWS]:
        prompt = last_message(row["prompt"])
        table.add_row(
            Text(prompt[-MAX_CELL_LENGTH:]),  # as Text, brackets are not markup
            Text(row["response"][:MAX_CELL_LENGTH]),
            f"{row['score']:.2f}",
            f"{row['kl']:.2f}",
        )
    get_console().print(table)  # that of the progress bar, so that it stays below
