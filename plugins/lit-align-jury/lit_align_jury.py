"""A jury of judges (Verga et al., 2024, https://arxiv.org/abs/2404.18796), as a source of feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lit_align import Register, hookimpl
from lit_align.batches import Group
from lit_align.errors import SetAside
from lit_align.feedback import Feedback, Opinion
from lit_align.feedback.base import compared, from_chances, opinion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lit_align.models.roles import Roles


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

        >>> from lit_align.feedback.ranked import Ranked
        >>> from lit_align.rewards.length import Length
        >>> few, many = Ranked(Length(most=1)), Ranked(Length(most=9, least=9))
        >>> said = [Group("Name a bird.", ["An owl.", "It is an owl."])]
        >>> [Jury(members)(said, "pairs")[0].why for members in ([few, many], [few, many, few])]
        ['a tie', '']
    """

    members: list[Feedback]
    quorum: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.quorum <= len(self.members):
            raise ValueError(f"quorum must be from 1 to the {len(self.members)} members, got {self.quorum}")

    def attach(self, roles: Roles, tokenizer: PreTrainedTokenizerBase) -> None:
        for member in self.members:
            member.attach(roles, tokenizer)

    def __call__(self, groups: Sequence[Group], takes: str) -> list[Opinion]:
        said = zip(*(member(groups, "pairs") for member in self.members), strict=True)
        return [
            opinion(
                tuple(record for one in opinions for record in one.records),
                partial(self._label, group, opinions, takes),
            )
            for group, opinions in zip(groups, said, strict=True)
        ]

    def _label(self, group: Group, opinions: Sequence[Opinion], takes: str) -> Group:
        votes: dict[tuple[int, int], list[float]] = {}
        for one in opinions:
            for pair, chance in compared(group, one).items():
                votes.setdefault(pair, []).append(chance)
        chances = {pair: sum(of) / len(of) for pair, of in votes.items() if len(of) >= self.quorum}
        if not chances:
            raise SetAside("no quorum")
        return from_chances(group, chances, takes)


@hookimpl
def register_feedback(register: Register) -> None:
    register(Jury)
