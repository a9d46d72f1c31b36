"""Reward from comparisons within the group: any source of feedback becomes wins minus losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from lit_align import Register, hookimpl
from lit_align.errors import ConfigError
from lit_align.feedback import Feedback
from lit_align.feedback.base import IndexPair, pair_probabilities
from lit_align.feedback.checked_results import checked_results
from lit_align.plugin_wrapping import Wrapping
from lit_align.rewards import Group, Reward, Scores
from lit_align.rewards.base import response_text
from lit_align.types import LabelKind


def _learner(source: Wrapping) -> Feedback | None:
    """A source of feedback that learns: this one, or one that it asks."""
    if isinstance(source, Feedback) and type(source).state is not Feedback.state:
        return source
    return next(filter(None, map(_learner, source.wrapped())), None)


@dataclass(frozen=True)
class Tournament(Reward):
    r"""Mean result of a response's comparisons with the others to its prompt, from -1 to 1; no reward model is trained.

    .. math:: r_i = \frac{1}{n_i} \sum_{j \ne i} \big(2 P(i \succ j) - 1\big)

    n is the number of its comparisons; a response without one is not scored, and equal texts are a tie. All pairs of K
    responses are compared: K (K - 1) / 2 comparisons, which cost a judge with ``swap`` two questions each.

    Args:
        feedback: who compares, such as ``Judge``.

    Raises:
        ConfigError: if the feedback gives no comparisons of given responses, or learns between its answers.

    Example:
        >>> from lit_align.feedback.from_reward import FromReward
        >>> from lit_align.rewards.length import Length
        >>> shorter = FromReward(Length(max_words=1), pairs="all")
        >>> Tournament(shorter)([Group("", ["an old owl", "owl", "an owl"])]).total
        tensor([-1.,  1.,  0.])
    """

    feedback: Feedback

    def __post_init__(self) -> None:
        kinds = self.feedback.label_kinds
        if LabelKind.PAIRS not in kinds or self.feedback.writes_responses:
            raise ConfigError(
                f"{type(self.feedback).__name__} does not compare given responses; use Judge or another source of pairs"
            )

        learner = _learner(self.feedback)
        if learner is not None:
            raise ConfigError(
                f"{type(learner).__name__} learns from what it is asked, and a reward is asked in validation too "
                "and kept in no checkpoint; use Judge, or FromReward of its reward model"
            )

    def wrapped(self) -> Sequence[Wrapping]:
        return (self.feedback,)

    def __call__(self, groups: Sequence[Group]) -> Scores:
        results = checked_results(self.feedback, groups, LabelKind.PAIRS)
        scores: list[float] = []
        scored: list[bool] = []
        for group, result in zip(groups, results, strict=True):
            outcomes: list[list[float]] = [[] for _ in group.responses]
            equal = _equal_pairs(group)
            for (i, j), probability in pair_probabilities(group, result).items():
                if (i, j) in equal:
                    continue
                outcomes[i].append(2 * probability - 1)
                outcomes[j].append(1 - 2 * probability)
            for i, j in equal:
                outcomes[i].append(0.0)
                outcomes[j].append(0.0)
            for own in outcomes:
                scores.append(sum(own) / max(len(own), 1))
                scored.append(bool(own))
        return Scores(torch.tensor(scores), scored=torch.tensor(scored))


def _equal_pairs(group: Group) -> set[IndexPair]:
    """Pairs of responses with the same text, of which a source need give no verdict."""
    texts = [response_text(response) for response in group.responses]
    return {(i, j) for i, j in combinations(range(len(texts)), 2) if texts[i] == texts[j]}


@hookimpl
def register_rewards(register: Register) -> None:
    register(Tournament)
