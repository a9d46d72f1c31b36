"""Every model against every other one: duels on the same prompts, and ratings with ties and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from lit_align.evaluation.dialogues import DialogueTask, transcript
from lit_align.evaluation.suite.base import Item, Row
from lit_align.functional.davidson import (
    Comparisons,
    bootstrap_strengths,
    fit_strengths,
    strength_deviations,
)
from lit_align.functional.statistics import Floats
from lit_align.types import Group

ELO = 400 / np.log(10)
"""Points of an Elo rating for each nat of log-strength."""


@dataclass(frozen=True)
class Dialogues(DialogueTask):
    """Asks the turns of each row and grades nothing; `Task` for what it shares with a suite's tasks."""

    def grade(self, rows: Sequence[Row], responses: Sequence[Any]) -> list[Item]:
        """Nothing."""
        return []


class Duel(NamedTuple):
    """Two models' answers to one prompt, up to one of its turns.

    Args:
        first: number of the first model.
        second: number of the second.
        prompt: number of the prompt.
        turn: of the last answers, from 1 on.
        group: the first turn with both dialogues as responses, for a judge.
    """

    first: int
    second: int
    prompt: int
    turn: int
    group: Group

    @property
    def is_same(self) -> bool:
        """Whether both said the same, which is a tie."""
        return self.group.responses[0] == self.group.responses[1]


def make_duels(rows: Sequence[Row], answers: Sequence[Sequence[Sequence[str]]]) -> list[Duel]:
    """Every pair of models on every turn of every prompt.

    Args:
        rows: with ``turns``.
        answers: ``[model][row][turn]``.
    """
    duels = []
    for number, row in enumerate(rows):
        for turn in range(1, len(row["turns"]) + 1):
            turns = row["turns"][:turn]
            texts = [transcript(turns, of_model[number][:turn]) for of_model in answers]
            for first, second in combinations(range(len(answers)), 2):
                source = f"prompt {number + 1}, turn {turn}"
                group = Group(turns[0], [texts[first], texts[second]], source=source)
                duels.append(Duel(first, second, number, turn, group))
    return duels


def outcome(probability: float, tie_margin: float) -> float:
    """1 for a win of the first, 0 for a loss, 1/2 for a probability so near to 1/2.

    Example:
        >>> outcome(0.9, 0.1), outcome(0.45, 0.1), outcome(0.5, 0.0)
        (1.0, 0.5, 0.5)
    """
    if abs(probability - 0.5) <= tie_margin:
        return 0.5
    return float(probability > 0.5)


def rate(
    duels: Sequence[Duel], outcomes: Sequence[float | None], names: Sequence[str]
) -> dict[str, Any]:
    """Ratings over all turns and over each, with the counts of every pair.

    Args:
        duels: that were judged.
        outcomes: 1 for the first, 0 for the second, 1/2 for a tie; None where the verdict could not be read.
        names: of the models.
    """
    judged = [
        (duel, result) for duel, result in zip(duels, outcomes, strict=True) if result is not None
    ]
    report = {"all turns": _ratings(judged, names)}
    turns = sorted({duel.turn for duel, _ in judged})
    for turn in turns if len(turns) > 1 else ():
        of_turn = [(duel, result) for duel, result in judged if duel.turn == turn]
        report[f"turn {turn}"] = _ratings(of_turn, names)
    return {"ratings": report, "pairs": _pairs(judged, names), "unread": list(outcomes).count(None)}


def _ratings(judged: Sequence[tuple[Duel, float]], names: Sequence[str]) -> dict[str, Any]:
    """Log-strength of each model, and how far it is above the first, with a 95 % interval and ranks; and ν."""
    comparisons = Comparisons(
        np.array([duel.first for duel, _ in judged]),
        np.array([duel.second for duel, _ in judged]),
        np.array([result for _, result in judged]),
        np.unique([duel.prompt for duel, _ in judged], return_inverse=True)[1],
    )
    fit = fit_strengths(comparisons, len(names))
    resamples = bootstrap_strengths(comparisons, len(names))
    deviations = strength_deviations(comparisons, fit)
    ranks = 1 + (resamples[:, None, :] > resamples[:, :, None]).sum(2)
    models: dict[str, Any] = {}
    for number, name in enumerate(names):
        above_first = float(fit.log_strength[number] - fit.log_strength[0])
        differences = resamples[:, number] - resamples[:, 0]
        models[name] = {
            "log_strength": float(fit.log_strength[number]),
            "elo": float(1000 + ELO * fit.log_strength[number]),
            "above_first": above_first,
            "interval": _interval(differences, above_first, deviations[number, 0]),
            "ranks": np.percentile(ranks[:, number], [2.5, 97.5]).tolist(),
        }
    return {"models": models, "tie": fit.tie, "prompts": len(np.unique(comparisons.prompt))}


def _interval(resamples: Floats, value: float, deviation: float) -> list[float]:
    """As far as the resamples' percentiles and as the normal approximation of the fit."""
    low, high = np.percentile(resamples, [2.5, 97.5])
    reach = 1.96 * deviation
    return [float(min(low, value - reach)), float(max(high, value + reach))]


def _pairs(judged: Sequence[tuple[Duel, float]], names: Sequence[str]) -> list[dict[str, Any]]:
    pairs = []
    for first, second in combinations(range(len(names)), 2):
        results = [r for duel, r in judged if (duel.first, duel.second) == (first, second)]
        pairs.append(
            {
                "first": names[first],
                "second": names[second],
                "wins": results.count(1.0),
                "ties": results.count(0.5),
                "losses": results.count(0.0),
            }
        )
    return pairs
