"""A reward as the judge of responses, such as a reward model (Dong et al., 2024, https://arxiv.org/abs/2405.07863)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import torch

from lit_align import Register, hookimpl
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import label_from_scores, make_result, prompt_hash
from lit_align.rewards import Reward
from lit_align.rewards.base import checked_scores, response_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet


@dataclass(frozen=True)
class FromReward(Feedback):
    """What a reward makes of the responses: the one with the higher score is better.

    Args:
        reward: what they are scored by.
        pairs: the best response against the worst, or every two whose scores differ.
        threshold: score that makes a response desirable, and without which none is worth imitating; null compares with
            the mean of the prompt's responses, and imitates the best.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> [opinion] = FromReward(Length(max_words=2))([Group("Name a bird.", ["An owl.", "It would be an owl."])], "pairs")
        >>> opinion.group.pairs  # three words too many, of two
        (Pair(better=0, worse=1, probability=1.0, margin=1.5),)
    """

    reward: Reward
    pairs: Literal["extremes", "all"] = "extremes"
    threshold: float | None = None

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        self.reward.attach(adapters, tokenizer)

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        if not groups:
            return []
        began = perf_counter()
        scores = torch.split(
            checked_scores(self.reward, groups).total, [len(group.responses) for group in groups]
        )
        seconds = (perf_counter() - began) / len(groups)
        return [
            self._label(group, of.tolist(), label_kind, seconds)
            for group, of in zip(groups, scores, strict=True)
        ]

    def _label(
        self, group: Group, scores: list[float], label_kind: str, seconds: float
    ) -> FeedbackResult:
        once: dict[
            str, float
        ] = {}  # in a batch the same text can come out different in the last bit
        scores = [
            once.setdefault(response_text(one), score)
            for one, score in zip(group.responses, scores, strict=True)
        ]
        spent = {"cost": 0.0, "seconds": seconds}
        record = {
            "source": repr(self.reward),
            "prompt": prompt_hash(group),
            "scores": scores,
            **spent,
        }
        how: Any = {"threshold": self.threshold, "all_pairs": self.pairs == "all"}
        return make_result((record,), partial(label_from_scores, group, scores, label_kind, **how))


@hookimpl
def register_feedback(register: Register) -> None:
    register(FromReward)
