"""Labels from a reward, such as a reward model (Dong et al., 2024, https://arxiv.org/abs/2405.07863)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Literal

import torch

from lit_align import Register, hookimpl
from lit_align.data.label_conversion import select_responses, without_labels
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import label_from_scores, make_result, prompt_hash
from lit_align.plugin_wrapping import Wrapping
from lit_align.rewards import Reward
from lit_align.rewards.base import checked_scores, response_text


@dataclass(frozen=True)
class FromReward(Feedback):
    """Labels from the scores of a reward: the response with the higher score is better.

    Args:
        reward: scores the responses.
        pairs: the best response against the worst, or all pairs whose scores differ.
        threshold: score above which a response is desirable, and below which none is worth imitating; null takes the
            mean over the prompt's responses, and imitates the best.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> group = Group("Name a bird.", ["An owl.", "It would be an owl."])
        >>> [result] = FromReward(Length(max_words=2))([group], "pairs")
        >>> result.group.pairs  # three words too many, of two
        (Pair(better=0, worse=1, probability=1.0, margin=1.5),)
    """

    reward: Reward
    pairs: Literal["extremes", "all"] = "extremes"
    threshold: float | None = None

    def wrapped(self) -> Sequence[Wrapping]:
        return (self.reward,)

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        if not groups:
            return []
        start = perf_counter()
        scores = checked_scores(self.reward, groups, may_abstain=True)
        sizes = [len(group.responses) for group in groups]
        is_scored = torch.ones(sum(sizes), dtype=torch.bool)
        if scores.scored is not None:
            is_scored = scores.scored.cpu()
        split = zip(
            torch.split(scores.total.cpu(), sizes), torch.split(is_scored, sizes), strict=True
        )
        seconds = (perf_counter() - start) / len(groups)
        results = []
        for group, (total, scored) in zip(groups, split, strict=True):
            values = zip(total.tolist(), scored.tolist(), strict=True)
            scores_of_group = [value if has_score else None for value, has_score in values]
            results.append(self._label(group, scores_of_group, label_kind, seconds))
        return results

    def _label(
        self, group: Group, values: Sequence[float | None], label_kind: str, seconds: float
    ) -> FeedbackResult:
        # Within a batch the scores of equal texts may differ in the last bit: the first one counts.
        score_of_text: dict[str, float | None] = {}
        for response, score in zip(group.responses, values, strict=True):
            score_of_text.setdefault(response_text(response), score)
        recorded = [score_of_text[response_text(response)] for response in group.responses]
        record = {
            "source": repr(self.reward),
            "prompt": prompt_hash(group),
            "scores": recorded,
            "cost": 0.0,
            "seconds": seconds,
        }
        scores = [score for score in recorded if score is not None]
        if not scores:
            return FeedbackResult(None, (record,), "no response was scored")
        if len(scores) < len(recorded):
            indices = [index for index, score in enumerate(recorded) if score is not None]
            group = select_responses(without_labels(group), indices)
        label = partial(
            label_from_scores,
            group,
            scores,
            label_kind,
            threshold=self.threshold,
            all_pairs=self.pairs == "all",
        )
        return make_result((record,), label)


@hookimpl
def register_feedback(register: Register) -> None:
    register(FromReward)
