"""Self-play: the data's answer beats the policy's own (Chen et al., 2024, https://arxiv.org/abs/2401.01335)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from lit_align import Register, hookimpl
from lit_align.data.label_conversion import without_labels
from lit_align.errors import SetAside
from lit_align.feedback import Feedback, FeedbackResult, Group
from lit_align.feedback.base import (
    label_from_scores,
    make_result,
    select_labels,
)
from lit_align.rewards.base import response_text


@dataclass(frozen=True)
class SelfPlay(Feedback):
    """The reference answer (``target``) is better than every other response; the others are tied.

    A response with the same text as the reference answer is left out.

    Example:
        >>> [result] = SelfPlay()([Group("Name a bird.", ["An owl.", "Bird bird."], target=0)], "pairs")
        >>> result.group.pairs
        (Pair(better=0, worse=1, probability=1.0, margin=0.0),)
    """

    def __call__(self, groups: Sequence[Group], label_kind: str) -> list[FeedbackResult]:
        return [make_result((), partial(_label, group, label_kind)) for group in groups]


def _label(group: Group, label_kind: str) -> Group:
    if group.target is None:
        raise SetAside("no reference answer")
    answer = group.responses[group.target]
    answer_text = response_text(answer).strip()
    responses = [answer]
    for response in group.responses:
        if response_text(response).strip() != answer_text:
            responses.append(response)
    num_others = len(responses) - 1
    compared = without_labels(group)._replace(responses=responses)
    if label_kind == "ratings":
        return label_from_scores(compared, [1.0] + [0.0] * num_others, label_kind)
    return select_labels(compared._replace(ranking=(1,) + (2,) * num_others), label_kind)


@hookimpl
def register_feedback(register: Register) -> None:
    register(SelfPlay)
