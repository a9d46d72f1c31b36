"""A jury of judges (Verga et al., 2024, https://arxiv.org/abs/2404.18796), as a source of feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from lit_align import Register, hookimpl
from lit_align.errors import SetAside
from lit_align.feedback import Feedback, FeedbackResult
from lit_align.feedback.base import label_from_probabilities, make_result, pair_probabilities
from lit_align.types import Group


@dataclass(frozen=True)
class Jury(Feedback):
    """The mean probability over several judges that a response is better; one without a verdict has no vote.

    Args:
        members: the judges.
        quorum: votes that a comparison needs to count.

    Raises:
        ValueError: unless quorum is from 1 to the number of members.

    Example:
        One judge prefers few words and one prefers many: a tie. A third decides.

        >>> from lit_align.feedback.from_reward import FromReward
        >>> from lit_align.rewards.length import Length
        >>> short, long = FromReward(Length(max_words=1)), FromReward(Length(max_words=9, min_words=9))
        >>> groups = [Group("Name a bird.", ["An owl.", "It is an owl."])]
        >>> [Jury(members)(groups, "pairs")[0].reason for members in ([short, long], [short, long, short])]
        ['a tie', '']
    """

    members: list[Feedback]
    quorum: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.quorum <= len(self.members):
            raise ValueError(
                f"quorum must be from 1 to the {len(self.members)} members, got {self.quorum}"
            )

    def wrapped(self) -> Sequence[Feedback]:
        return self.members

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        member_results = [member(groups, "pairs") for member in self.members]
        results = []
        for group, *votes in zip(groups, *member_results, strict=True):
            records = tuple(record for vote in votes for record in vote.records)
            label = partial(self._label, group, votes, label_kind)
            results.append(make_result(records, label))
        return results

    def _label(self, group: Group, votes: Sequence[FeedbackResult], label_kind: str) -> Group:
        probabilities: dict[tuple[int, int], list[float]] = {}
        for vote in votes:
            for pair, probability in pair_probabilities(group, vote).items():
                probabilities.setdefault(pair, []).append(probability)
        means = {}
        for pair, values in probabilities.items():
            if len(values) >= self.quorum:
                means[pair] = sum(values) / len(values)
        if not means:
            raise SetAside("no quorum")
        return label_from_probabilities(group, means, label_kind)


@hookimpl
def register_feedback(register: Register) -> None:
    register(Jury)
