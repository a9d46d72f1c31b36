"""Robustness to hostile and careless annotators: a tenth and three tenths flip every vote, or vote at random.

``python -m tests.proofs.poisoning`` simulates campaigns with known labels and writes the accuracy of the aggregated
labels to ``poisoning.json`` and ``poisoning.png`` beside this file.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lit_align.labelling.aggregation import AGGREGATORS, Label

HERE = Path(__file__).parent
TASKS, PEOPLE, VOTES, CAMPAIGNS = 400, 30, 5, 20
SHARES = (0.0, 0.1, 0.3)


def campaign(seed: int, share: float, how: str) -> tuple[list[int], list[Label]]:
    """The truth, and votes of annotators who are right in 65 to 95 % of cases; some flip their votes, or toss coins."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, -1], TASKS)
    skill = rng.uniform(0.65, 0.95, PEOPLE)
    bad = np.arange(PEOPLE) < round(share * PEOPLE)  # skills are drawn without regard to the order
    skill = np.where(bad, 1 - skill if how == "flip" else 0.5, skill)
    given = []
    for task in range(TASKS):
        for who in rng.choice(PEOPLE, VOTES, replace=False):
            given.append(
                Label(
                    (task, 0, 1),
                    f"w{who}",
                    int(truth[task] if rng.random() < skill[who] else -truth[task]),
                )
            )
    return truth.tolist(), given


def quality(truth: list[int], given: list[Label], how: str) -> tuple[float, float]:
    """Share of the tasks whose more probable side is true (half of the undecided), and the Brier score; 0 is best."""
    found = AGGREGATORS[how](given)
    true = np.array([found[task, 0, 1].get(side, 0.0) for task, side in enumerate(truth)])
    return float(np.mean((true > 0.5 + 1e-9) + 0.5 * (abs(true - 0.5) < 1e-9))), float(
        np.mean((1 - true) ** 2)
    )


def main() -> None:
    """Simulate, count, draw."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figures: dict[str, Any] = {}
    for bad in ("flip", "coin"):
        campaigns = {
            share: [campaign(seed, share, bad) for seed in range(CAMPAIGNS)] for share in SHARES
        }
        for how in AGGREGATORS:
            of_share = {
                share: np.array([quality(*one, how) for one in several])
                for share, several in campaigns.items()
            }
            figures.setdefault(bad, {})[how] = {
                str(share): dict(
                    zip(
                        ("accuracy", "std", "brier"),
                        (*q.mean(0)[:1], *q.std(0)[:1], *q.mean(0)[1:]),
                        strict=True,
                    )
                )
                for share, q in of_share.items()
            }
    settings = {"tasks": TASKS, "annotators": PEOPLE, "votes": VOTES, "campaigns": CAMPAIGNS}
    written = json.dumps({**settings, **figures}, indent=2, default=float)
    (HERE / "poisoning.json").write_text(written + "\n")
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained", sharey=True)
    for axis, (bad, what) in zip(
        axes, (("flip", "flip every vote"), ("coin", "toss a coin")), strict=True
    ):
        for how, style in zip(AGGREGATORS, ("o-", "s--", "^-"), strict=True):
            points = [figures[bad][how][str(share)] for share in SHARES]
            means, spread = ([point[name] for point in points] for name in ("accuracy", "std"))
            axis.errorbar(
                [100 * share for share in SHARES], means, spread, fmt=style, capsize=3, label=how
            )
        axis.set(xlabel=f"annotators who {what}, %", ylim=(0.6, 1))
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="labels that are right")
    axes[0].legend()
    figure.savefig(HERE / "poisoning.png", dpi=120)
    print(written)


if __name__ == "__main__":
    main()
