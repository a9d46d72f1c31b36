"""A jury of judges (Verga et al., 2024, https://arxiv.org/abs/2404.18796), as a source of feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lit_align import Register, hookimpl
from lit_align.errors import SetAside
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.base import label_from_probabilities, make_result, pair_probabilities
from lit_align.types import Group

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.adapter_set import AdapterSet


@dataclass(frozen=True)
class Jury(Feedback):
    """The mean of what several sources say of two responses; one that cannot tell has no vote.

    Args:
        members: who is asked.
        quorum: votes that a comparison needs to count.

    Raises:
        ValueError: unless quorum is from 1 to the number of members.

    Example:
        Of two who count words one wants few and one wants many: a tie. A third decides.

        >>> from lit_align.feedback.from_reward import FromReward
        >>> from lit_align.rewards.length import Length
        >>> few, many = FromReward(Length(max_words=1)), FromReward(Length(max_words=9, min_words=9))
        >>> said = [Group("Name a bird.", ["An owl.", "It is an owl."])]
        >>> [Jury(members)(said, "pairs")[0].reason for members in ([few, many], [few, many, few])]
        ['a tie', '']
    """

    members: list[Feedback]
    quorum: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.quorum <= len(self.members):
            raise ValueError(
                f"quorum must be from 1 to the {len(self.members)} members, got {self.quorum}"
            )

    def attach(self, adapters: AdapterSet, tokenizer: PreTrainedTokenizerBase) -> None:
        for member in self.members:
            member.attach(adapters, tokenizer)

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        said = zip(*(member(groups, "pairs") for member in self.members), strict=True)
        return [
            make_result(
                tuple(record for one in opinions for record in one.records),
                partial(self._label, group, opinions, label_kind),
            )
            for group, opinions in zip(groups, said, strict=True)
        ]

    def _label(self, group: Group, opinions: Sequence[FeedbackResult], label_kind: str) -> Group:
        votes: dict[tuple[int, int], list[float]] = {}
        for one in opinions:
            for pair, chance in pair_probabilities(group, one).items():
                votes.setdefault(pair, []).append(chance)
        chances = {pair: sum(of) / len(of) for pair, of in votes.items() if len(of) >= self.quorum}
        if not chances:
            raise SetAside("no quorum")
        return label_from_probabilities(group, chances, label_kind)


@hookimpl
def register_feedback(register: Register) -> None:
    register(Jury)
