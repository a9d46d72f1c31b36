"""Best-of-N: several answers to each prompt, of which a reward picks one, and what that is worth for how much KL.

The bound on the KL divergence and when it is tight: Beirami et al., 2024, https://arxiv.org/abs/2401.01879.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lit_align.errors import ConfigError
from lit_align.rewards import Reward
from lit_align.rewards.base import as_response, checked_scores
from lit_align.types import Group


@dataclass
class BestOf:
    """Answer each prompt n times and keep the answer with the highest reward; of equal ones the first.

    Args:
        n: answers to each prompt; they share the pass over it.
        reward: what they are scored by, by its name.
        keep_all: write down every answer, not only the best.
    """

    n: int
    reward: Reward
    keep_all: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"best_of.n is {self.n}; it is a number of answers, at least 1")

    def choose(
        self, groups: Sequence[Group], answers: Sequence[list[tuple[str, bool]]]
    ) -> list[dict[str, Any]]:
        """For each group its best answer, that one's score, and all scores and whether each answer came to an end.

        Args:
            groups: the prompts.
            answers: n to each, and whether the model ended it rather than the limit; a reward does not see that.

        Example:
            >>> from lit_align.rewards.length import Length
            >>> said = [("An owl.", True), ("Owl", False), ("Crow.", True)]
            >>> BestOf(3, Length(most=1)).choose([Group("Name a bird.", [])], [said])
            [{'answer': 'Owl', 'score': 0.0, 'scores': [-1.0, 0.0, 0.0], 'ended': [True, False, True]}]
        """
        if not groups:
            return []
        asked = [
            group._replace(responses=[as_response(group, one) for one, _ in said])
            for group, said in zip(groups, answers, strict=True)
        ]
        records: list[dict[str, Any]] = []
        for said, scores in zip(
            answers, checked_scores(self.reward, asked).total.view(-1, self.n).tolist(), strict=True
        ):
            best = max(range(self.n), key=scores.__getitem__)
            kept = {"scores": scores, "ended": [ended for _, ended in said]}
            kept |= {"answers": [one.strip() for one, _ in said]} if self.keep_all else {}
            records.append({"answer": said[best][0].strip(), "score": scores[best], **kept})
        return records

    def report(self, folder: Path, rows: Sequence[dict[str, Any]]) -> None:
        """Print what the best of 1, 2, 4, ... n is worth, given what `choose` made; leave figures and a plot."""
        from rich.console import Console
        from rich.table import Table

        curve = best_of_curve([row["scores"] for row in rows])
        ended = [one for row in rows for one in row["ended"]]
        counts = {"prompts": len(rows), "answers": len(ended), "cut_off": len(ended) - sum(ended)}
        record = {
            "reward": repr(self.reward),
            **counts,
            "curve": [point._asdict() for point in curve],
        }
        (folder / "best_of.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        table = Table(
            "best of", "mean reward", "KL, at most", title=f"{len(rows)} prompts, {self.reward!r}"
        )
        for point in curve:
            table.add_row(str(point.n), f"{point.reward:.4f}", f"{point.kl:.3f} nats")
        Console().print(table)
        if not all(ended):
            print(
                f"{counts['cut_off']} of {len(ended)} answers were cut off by max_new_tokens, and scored as they were; "
                "raise it if they are many"
            )
        _plot(curve, type(self.reward).__name__, folder / "best_of.png")


class Point(NamedTuple):
    """What the best of ``n`` answers is worth.

    Args:
        n: answers to choose from.
        reward: its expectation, mean over prompts.
        kl: bound on the KL divergence from the model that was sampled, in nats.
    """

    n: int
    reward: float
    kl: float


def best_of_curve(scores: Sequence[Sequence[float]]) -> list[Point]:
    r"""Expected reward of the best of n = 1, 2, 4, ... N answers, without bias, from N scores of each prompt.

    The mean of the best over all subsets of n: with the scores in ascending order,

    .. math:: \sum_{i=n}^{N} \binom{i-1}{n-1} r_{(i)} \Big/ \binom{N}{n}, \qquad
        \mathrm{KL} \le \log n - \frac{n-1}{n}

    Args:
        scores: ``[prompts][N]``, at least one prompt.

    Example:
        Of 1, 2 and 6 the pairs are (1, 2), (1, 6) and (2, 6): their best are 2, 6 and 6. A bound is log 2 - 1/2.

        >>> [(n, round(reward, 3), round(kl, 3)) for n, reward, kl in best_of_curve([[2.0, 6.0, 1.0]])]
        [(1, 3.0, 0.0), (2, 4.667, 0.193), (3, 6.0, 0.432)]
    """
    most, points = len(scores[0]), []
    for n in sorted({*(2**k for k in range(most.bit_length())), most}):
        weights = [math.comb(i - 1, n - 1) / math.comb(most, n) for i in range(1, most + 1)]
        best = [sum(w * r for w, r in zip(weights, sorted(row), strict=True)) for row in scores]
        points.append(Point(n, sum(best) / len(best), math.log(n) - (n - 1) / n))
    return points


def _plot(curve: list[Point], reward: str, picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
    axis.plot([point.kl for point in curve], [point.reward for point in curve], "o-")
    for point in curve:
        axis.annotate(
            f"{point.n}", (point.kl, point.reward), textcoords="offset points", xytext=(0, 6)
        )
    axis.set(title="best of n", xlabel="KL from the model, at most (nats)", ylabel=f"mean {reward}")
    axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)
    plt.close(figure)
