"""What careless or hostile annotators cost: a tenth and a third of them flip every vote.

``python -m tests.proofs.poisoning`` simulates campaigns of known truth and keeps how often each way of making one label
of several votes is right, as ``poisoning.json`` and ``poisoning.png`` beside this file.
"""

import json
from pathlib import Path

import numpy as np

from lit_align.labelling.votes import HOW, Label

HERE = Path(__file__).parent
TASKS, PEOPLE, VOTES, CAMPAIGNS = 400, 30, 5, 20
FLIPPED = (0.0, 0.1, 0.3)


def campaign(seed: int, flipped: float) -> tuple[list[int], list[Label]]:
    """The truth, and votes of annotators who are right in 65 to 95 % of cases, or who flip what they would have said."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, -1], TASKS)
    skill = rng.uniform(0.65, 0.95, PEOPLE)
    hostile = np.arange(PEOPLE) < round(flipped * PEOPLE)  # skills are drawn without regard to the order
    given = []
    for task in range(TASKS):
        for who in rng.choice(PEOPLE, VOTES, replace=False):
            right = (rng.random() < skill[who]) != hostile[who]
            given.append(Label((task, 0, 1), f"w{who}", int(truth[task] if right else -truth[task])))
    return truth.tolist(), given


def accuracy(truth: list[int], given: list[Label], how: str) -> float:
    """Share of the tasks whose likelier side is the true one; of those that are undecided, half."""
    found = HOW[how](given)
    lead = [found[task, 0, 1].get(side, 0.0) - found[task, 0, 1].get(-side, 0.0) for task, side in enumerate(truth)]
    return float(np.mean([0.5 if abs(one) < 1e-9 else one > 0 for one in lead]))


def main() -> None:
    """Simulate, count, draw."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figures: dict[str, dict[str, dict[str, float]]] = {how: {} for how in HOW}
    for flipped in FLIPPED:
        campaigns = [campaign(seed, flipped) for seed in range(CAMPAIGNS)]
        for how in HOW:
            right = [accuracy(*one, how) for one in campaigns]
            figures[how][str(flipped)] = {"mean": float(np.mean(right)), "std": float(np.std(right))}
    settings = {"tasks": TASKS, "annotators": PEOPLE, "votes": VOTES, "campaigns": CAMPAIGNS}
    (HERE / "poisoning.json").write_text(json.dumps({**settings, "accuracy": figures}, indent=2) + "\n")
    figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for how, style in zip(HOW, ("o-", "s--", "^-"), strict=True):
        points = [figures[how][str(flipped)] for flipped in FLIPPED]
        means, spread = ([point[name] for point in points] for name in ("mean", "std"))
        axis.errorbar([100 * flipped for flipped in FLIPPED], means, spread, fmt=style, capsize=3, label=how)
    axis.set(
        title="labels that are right", xlabel="annotators who flip every vote, %", ylabel="accuracy", ylim=(0.5, 1.02)
    )
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(HERE / "poisoning.png", dpi=120)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
