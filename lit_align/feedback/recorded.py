"""What the data say themselves: labels that people gave once."""

from collections.abc import Sequence
from dataclasses import dataclass

from lit_align import Register, hookimpl
from lit_align.data.prepare import SELECT, likelier, rated
from lit_align.errors import SetAside
from lit_align.feedback import Feedback, Group, Opinion


@dataclass(frozen=True)
class Recorded(Feedback):
    """The labels that a row carries, or those that they imply.

    Example:
        >>> from lit_align.batches import Pair
        >>> row = Group("Name a bird.", ["An owl.", "A bat."], (Pair(0, 1),))
        >>> [opinion] = Recorded()([row], "desirable")
        >>> opinion.group.desirable
        (True, False)
    """

    def __call__(self, groups: Sequence[Group], takes: str) -> list[Opinion]:
        return [self._read(group, takes) for group in groups]

    def _read(self, group: Group, takes: str) -> Opinion:
        group = group._replace(pairs=likelier(group.pairs))
        try:
            return Opinion(rated(group) if takes == "ratings" else SELECT[takes](group))
        except SetAside as reason:
            return Opinion(None, why=str(reason))


@hookimpl
def register_feedback(register: Register) -> None:
    register(Recorded)
