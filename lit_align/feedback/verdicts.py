"""What a judge says of labelled comparisons, as arrays for statistics."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lit_align.feedback import FeedbackResult
from lit_align.feedback.base import pair_probabilities
from lit_align.functional.statistics import Floats, bootstrap_accuracy, win_score
from lit_align.rewards.base import response_text
from lit_align.types import Group


class Verdicts(NamedTuple):
    """A judge's scores of comparisons; every field is ``[n]``.

    Args:
        prompt: an id of the prompt, by which the bootstrap resamples.
        subset: where the comparison comes from.
        chosen: score of the better response.
        rejected: score of the worse one.
        chosen_words: length of the better response.
        rejected_words: length of the worse one.
    """

    prompt: npt.NDArray[np.int64]
    subset: npt.NDArray[np.str_]
    chosen: Floats
    rejected: Floats
    chosen_words: Floats
    rejected_words: Floats

    def bootstrap(self, name: str = "") -> Floats:
        """Accuracy, then that of each bootstrap resample; a tie is half right. See `bootstrap_accuracy`."""
        return bootstrap_accuracy(win_score(self.chosen, self.rejected), self.prompt, name)


class VerdictCollector:
    """Collects the comparisons of groups into `Verdicts`."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, float, float, int, int]] = []
        self.prompt_ids: dict[str, int] = {}

    def add(self, group: Group, scores: Sequence[float]) -> None:
        """Add the pairs of a group.

        Args:
            group: with pairs; the column ``subset``, or else the file, names the subset it belongs to.
            scores: of each response.
        """
        prompt = self.prompt_ids.setdefault(json.dumps(group.prompt), len(self.prompt_ids))
        file_name = Path(group.source.rpartition(":")[0]).name
        subset = str(group.extra.get("subset") or file_name)
        num_words = [len(response_text(response).split()) for response in group.responses]
        for pair in group.pairs:
            row = (
                prompt,
                subset,
                scores[pair.better],
                scores[pair.worse],
                num_words[pair.better],
                num_words[pair.worse],
            )
            self.rows.append(row)

    def verdicts(self) -> Verdicts:
        """All comparisons so far; at least one."""
        columns = zip(*self.rows, strict=True)
        return Verdicts(*map(np.array, columns))


def verdicts_from_feedback(
    groups: Sequence[Group], results: Sequence[FeedbackResult]
) -> tuple[Verdicts, int]:
    """The verdicts of a feedback source about the pairs of ``groups``, and how many it did not give.

    The score of a comparison is the log-odds of its probability, half for each side with opposite signs. A comparison
    without a verdict counts as a tie.
    """
    collector = VerdictCollector()
    num_unread = 0
    for group, result in zip(groups, results, strict=True):
        probabilities = pair_probabilities(group, result)
        for (i, j), probability in list(probabilities.items()):
            probabilities[j, i] = 1 - probability
        for pair in group.pairs:
            sides = (pair.better, pair.worse)
            if sides not in probabilities:
                num_unread += 1
            half_log_odds = _log_odds(probabilities.get(sides, 0.5)) / 2
            scores = [-half_log_odds] * len(group.responses)
            scores[pair.better] = half_log_odds
            collector.add(group._replace(pairs=(pair,)), scores)
    return collector.verdicts(), num_unread


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(clipped / (1 - clipped))
