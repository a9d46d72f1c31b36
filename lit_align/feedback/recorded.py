"""Labels that the data already contain."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from lit_align import Register, hookimpl
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import make_result, select_labels


@dataclass(frozen=True)
class Recorded(Feedback):
    """The labels of the row itself, or those that they imply.

    Example:
        >>> from lit_align.types import Pair
        >>> row = Group("Name a bird.", ["An owl.", "A bat."], (Pair(0, 1),))
        >>> [result] = Recorded()([row], "desirable")
        >>> result.group.desirable
        (True, False)
    """

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        return [make_result((), partial(select_labels, group, label_kind)) for group in groups]


@hookimpl
def register_feedback(register: Register) -> None:
    register(Recorded)
