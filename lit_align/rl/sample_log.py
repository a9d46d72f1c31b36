"""What the policy says while it learns: samples to read, and how much reward each nat has bought."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_align.functional.kl import kl_estimates
from lit_align.rewards.base import response_text
from lit_align.rl.rollouts import RolloutBatch

SHOWN, WIDEST = 3, 300  # rows on the screen; characters of a cell


def keep(now: RolloutBatch, step: int, folder: Path) -> None:
    """Append every sample of an iteration to ``samples.jsonl``, and print a few."""
    divergence = (kl_estimates(now.tokens["policy"], now.tokens["reference"])["k1"] * now.mask).sum(
        1
    )
    said = [(group, response) for group in now.texts for response in group.responses]
    rows = [
        {
            "step": step,
            "source": group.source,
            "prompt": group.prompt,
            "response": response_text(response),
            "score": now.scores.total[k].item(),
            **{f"rewards/{name}": part[k].item() for name, part in now.scores.parts.items()},
            "kl": divergence[k].item(),
            "tokens": int(now.length[k]),
            "ended": bool(now.ended[k]),
        }
        for k, (group, response) in enumerate(said)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    _print(rows, step)


def _print(rows: list[dict[str, Any]], step: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "prompt", "response", "score", "KL", title=f"samples of step {step}", show_lines=True
    )
    for row in rows[:: max(1, len(rows) // SHOWN)][:SHOWN]:
        prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]
        cells = (
            Text(prompt[-WIDEST:]),
            Text(row["response"][:WIDEST]),
        )  # Text: brackets are no markup
        table.add_row(*cells, f"{row['score']:.2f}", f"{row['kl']:.2f}")
    Console().print(table)


def plot(path: Sequence[tuple[float, float]], picture: Path) -> None:
    """Draw ``(KL, score)`` of every iteration (fig. 1 of Gao et al., 2023, https://arxiv.org/abs/2210.10760)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
    divergence, score = zip(*path, strict=True)
    axis.plot(divergence, score, color="0.8", zorder=1)
    points = axis.scatter(divergence, score, c=range(len(path)), s=14, zorder=2)
    axis.set(
        xlabel="KL from the reference, nats a response",
        ylabel="score",
        title="what the reward cost",
    )
    axis.grid(alpha=0.3)
    figure.colorbar(points, label="iteration", ticks=MaxNLocator(integer=True))
    figure.savefig(picture, dpi=120)
    plt.close(figure)
