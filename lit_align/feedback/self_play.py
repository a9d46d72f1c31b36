"""Self-play: the data's answer beats the policy's own (Chen et al., 2024, https://arxiv.org/abs/2401.01335)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from lit_align import Register, hookimpl
from lit_align.errors import SetAside
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import label_from_scores, make_result, select_labels, without_labels
from lit_align.rewards.base import response_text


@dataclass(frozen=True)
class SelfPlay(Feedback):
    """The response held up as the answer (``target``) is better than every other; they are all alike.

    A response that says the same as the answer is left out.

    Example:
        >>> [opinion] = SelfPlay()([Group("Name a bird.", ["An owl.", "Bird bird."], target=0)], "pairs")
        >>> opinion.group.pairs
        (Pair(better=0, worse=1, probability=1.0, margin=0.0),)
    """

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        return [make_result((), partial(_label, group, label_kind)) for group in groups]


def _label(group: Group, label_kind: str) -> Group:
    if group.target is None:
        raise SetAside("no response is held up as the answer")
    answer = group.responses[group.target]
    others = [
        one
        for one in group.responses
        if response_text(one).strip() != response_text(answer).strip()
    ]
    made = without_labels(group)._replace(responses=[answer, *others])
    if label_kind == "ratings":
        return label_from_scores(made, [1.0, *(0.0 for _ in others)], label_kind)
    return select_labels(made._replace(ranking=(1, *(2 for _ in others))), label_kind)


@hookimpl
def register_feedback(register: Register) -> None:
    register(SelfPlay)
